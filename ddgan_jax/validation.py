"""Which settings make sense together: `validate` refuses the others before anything is compiled.

What a field may be depends on the network, objective or noise schedule that the config names;
the table at the end holds one function for each of these names.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ddgan_jax.config import base_config, did_you_mean, leaves
from ddgan_jax.errors import UserError


def validate(config: ConfigDict, num_devices: int | None = None) -> None:
    """Refuse a config that cannot be trained.

    num_devices: how many accelerators share the batch, over all hosts; None: not known yet.
    Raises UserError naming the first field that is wrong, and what would work.
    """
    base = base_config()
    _check_fields("", {key: config[key] for key in config}, base)
    for section in ("data", "optimizer", "train", "log", "checkpoint", "sampling"):
        _check_fields(f"{section}.", config[section], base[section])
    for path, checks in _CHECKS_BY_NAME.items():
        _check_choice(config, path, checks)
    for path, value in leaves(config):
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(v, float) and not math.isfinite(v) for v in numbers):
            raise UserError(f"{path}={value} is not finite")
    _check_ranges(config, _RANGES)
    _check_data(config)
    _check_choice(config, "train.compute_dtype", ("float32", "bfloat16"))
    _check_choice(config, "train.mapping", ("pmap", "shard_map"))
    for path, checks in _CHECKS_BY_NAME.items():
        checks[_get(config, path)](config)
    _check_learning_rates(config.optimizer)
    _check_batch(config, num_devices)


class _Range(NamedTuple):
    holds: Callable[[Any], bool]
    text: str


_POSITIVE = _Range(lambda v: v > 0, "must be positive")
_NOT_NEGATIVE = _Range(lambda v: v >= 0, "must not be negative")
_BELOW_ONE = _Range(lambda v: 0 <= v < 1, "must be at least 0 and less than 1")
_EMBEDDING = _Range(lambda v: v >= 4, "must be at least 4")  # two frequencies, sine and cosine

_RANGES = {
    "data.image_size": _POSITIVE,
    "data.channels": _Range(lambda v: v in (1, 3), "must be 1 (gray) or 3 (RGB)"),
    "data.max_examples": _NOT_NEGATIVE,
    "data.memory_limit_mib": _NOT_NEGATIVE,
    "data.decode_threads": _POSITIVE,
    "optimizer.generator_learning_rate": _POSITIVE,
    "optimizer.discriminator_learning_rate": _POSITIVE,
    "optimizer.final_learning_rate": _POSITIVE,
    "optimizer.beta1": _BELOW_ONE,
    "optimizer.beta2": _BELOW_ONE,
    "optimizer.ema_decay": _BELOW_ONE,
    "optimizer.decay_steps": _NOT_NEGATIVE,
    "optimizer.decay_interval_steps": _POSITIVE,
    "train.batch_size": _POSITIVE,
    "train.num_steps": _POSITIVE,
    "train.seed": _Range(lambda v: 0 <= v < 2**31, "must lie between 0 and 2^31 - 1"),
    "log.every_steps": _POSITIVE,
    "log.samples_every_steps": _POSITIVE,
    "log.num_samples": _POSITIVE,
    "checkpoint.save_every_steps": _POSITIVE,
    "checkpoint.keep_latest": _POSITIVE,
    "checkpoint.keep_every_steps": _NOT_NEGATIVE,
    "sampling.chunk_size": _POSITIVE,
}


def _get(config: ConfigDict, path: str) -> Any:
    section, _, field = path.partition(".")
    return config[section][field]


def _check_fields(prefix: str, fields: Mapping[str, Any], template: Mapping[str, Any]) -> None:
    """The same names as the template, and values of its types."""
    for key in template:
        if key not in fields:
            raise UserError(f"{prefix}{key} is missing")
    for key, value in fields.items():
        if key not in template:
            nearest = did_you_mean(prefix + key, (prefix + known for known in template))
            raise UserError(f"{prefix}{key} is not a field{nearest}")
        if not _has_type_of(template[key], value):
            kind = _TYPE_NAMES[type(template[key])]
            kind += f" such as {template[key]}" if isinstance(template[key], tuple) else ""
            raise UserError(f"{prefix}{key}={value!r} is not {kind}")


_TYPE_NAMES = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a tuple",
    ConfigDict: "a group of fields",
}


def _has_type_of(example: Any, value: Any) -> bool:
    if isinstance(example, tuple):
        return isinstance(value, tuple) and all(_has_type_of(example[0], v) for v in value)
    if isinstance(example, float):
        return type(value) in (int, float)
    return type(value) is type(example)


def _check_choice(config: ConfigDict, path: str, known: Iterable[str]) -> None:
    section, _, field = path.partition(".")
    if field not in config[section]:
        raise UserError(f"{path} is missing")
    value = config[section][field]
    if value not in known:
        nearest = did_you_mean(str(value), known)
        raise UserError(f"{path}={value!r} is not one of {', '.join(known)}{nearest}")


def _check_ranges(config: ConfigDict, ranges: Mapping[str, _Range]) -> None:
    for path, (holds, text) in ranges.items():
        value = _get(config, path)
        if not all(map(holds, value)) if isinstance(value, tuple) else not holds(value):
            raise UserError(f"{path}={value} {text}")


def _nearest(value: int, works: Callable[[int], bool]) -> str:
    """ "16 or 24": the nearest numbers below and above `value` that work."""
    below = next((n for n in range(value - 1, 0, -1) if works(n)), None)
    above = next((n for n in range(value + 1, 2 * value + 2**16) if works(n)), None)
    return " or ".join(str(n) for n in (below, above) if n is not None)


def _check_data(config: ConfigDict) -> None:
    data = config.data
    if not data.name:
        raise UserError("data.name is empty: no data set chosen")
    if not data.split:
        raise UserError("data.split is empty; use 'train'")
    if data.name == "folder" and not data.path:
        raise UserError("data.name='folder' needs data.path, the folder of images")
    if data.path and data.name != "folder":
        raise UserError(f"data.path is only read with data.name='folder', not {data.name!r}")


def _check_learning_rates(optimizer: ConfigDict) -> None:
    if not optimizer.decay_steps:
        return
    if optimizer.decay_interval_steps > optimizer.decay_steps:
        raise UserError(
            f"optimizer.decay_interval_steps={optimizer.decay_interval_steps} must not exceed "
            f"optimizer.decay_steps={optimizer.decay_steps}"
        )
    for name in ("generator_learning_rate", "discriminator_learning_rate"):
        if optimizer[name] < optimizer.final_learning_rate:
            raise UserError(
                f"optimizer.final_learning_rate={optimizer.final_learning_rate} is above "
                f"optimizer.{name}={optimizer[name]}: the rate would grow"
            )


# The examples of one device enter the discriminator's minibatch standard deviation by so many.
_EXAMPLES_PER_GROUP = {"small": 4, "large": 4}


def _check_batch(config: ConfigDict, num_devices: int | None) -> None:
    if num_devices is None:
        return
    batch_size = config.train.batch_size
    group = _EXAMPLES_PER_GROUP.get(config.discriminator.name, 1)

    def works(batch_size: int) -> bool:
        per_device, rest = divmod(batch_size, num_devices)
        return rest == 0 and per_device > 0 and per_device % min(per_device, group) == 0

    if works(batch_size):
        return
    per_device, rest = divmod(batch_size, num_devices)
    reason = f"is not divisible by the {num_devices} devices"
    if rest == 0:
        reason = (
            f"gives each device {per_device} images, which do not form groups of {group} "
            "(minibatch standard deviation of the discriminator)"
        )
    raise UserError(f"train.batch_size={batch_size} {reason}; use {_nearest(batch_size, works)}")


# ---- noise schedules, by diffusion.schedule


def _check_vp(config: ConfigDict) -> None:
    _check_discrete_times(config)
    d = config.diffusion
    if not 0 <= d.beta_min < d.beta_max:
        raise UserError(
            "diffusion.schedule='vp' needs 0 <= beta_min < beta_max, "
            f"not beta_min={d.beta_min} and beta_max={d.beta_max}"
        )


def _check_geometric(config: ConfigDict) -> None:
    _check_discrete_times(config)
    d = config.diffusion
    if not 0 < d.beta_min < d.beta_max < 1:
        raise UserError(
            "diffusion.schedule='geometric' needs 0 < beta_min < beta_max < 1, "
            f"not beta_min={d.beta_min} and beta_max={d.beta_max}; try 0.0001 and 0.999"
        )


def _check_discrete_times(config: ConfigDict) -> None:
    _check_fields("diffusion.", config.diffusion, base_config().diffusion)
    _check_ranges(config, {"diffusion.num_timesteps": _POSITIVE})
    g = config.generator
    if g.get("time_embedding") == "fourier" and g.get("time_conditional", True):
        raise UserError(
            "generator.time_embedding='fourier' embeds log(t), and t = 0 occurs in "
            f"diffusion.schedule={config.diffusion.schedule!r}; use 'positional'"
        )


# ---- objectives, by objective.name


def _check_ddgan(config: ConfigDict) -> None:
    o = config.objective
    _check_fields("objective.", o, base_config().objective)
    _check_ranges(
        config,
        {
            "objective.augmentation_timesteps": _NOT_NEGATIVE,
            "objective.r1_gamma": _NOT_NEGATIVE,
            "objective.r1_interval": _POSITIVE,
        },
    )
    _check_choice(config, "objective.prediction", ("x_0", "x_t", "noise"))
    if o.prediction != "x_0" and config.generator.get("output_tanh"):
        raise UserError(
            f"objective.prediction={o.prediction!r} needs generator.output_tanh=False, "
            "since its values leave [-1, 1]"
        )
    if o.augmentation_timesteps and (config.diffusion.num_timesteps, o.prediction) != (1, "x_0"):
        raise UserError(
            f"objective.augmentation_timesteps={o.augmentation_timesteps} needs "
            "diffusion.num_timesteps=1 and objective.prediction='x_0'"
        )


# ---- generators, by generator.name


def _check_ncsnpp(config: ConfigDict) -> None:
    g = config.generator
    _check_fields("generator.", g, base_config().generator)
    choices = {
        "resblock": ("ddpm", "biggan", "biggan_oneadagn"),
        "progressive": ("none", "output_skip", "residual"),
        "progressive_input": ("none", "input_skip", "residual"),
        "progressive_combine": ("sum", "cat"),
        "time_embedding": ("positional", "fourier"),
        "latent": ("normal", "none"),
    }
    for field, known in choices.items():
        _check_choice(config, f"generator.{field}", known)
    positive = (
        "base_channels",
        "channel_multipliers",
        "num_res_blocks",
        "attention_resolutions",
        "fourier_scale",
        "latent_dim",
        "latent_embedding_dim",
    )
    ranges = {f"generator.{field}": _POSITIVE for field in positive}
    ranges |= {"generator.dropout": _BELOW_ONE, "generator.latent_layers": _NOT_NEGATIVE}
    _check_ranges(config, ranges)
    if not g.channel_multipliers:
        raise UserError("generator.channel_multipliers is empty; give one number per level")
    if g.fir and not (len(g.fir_kernel) >= 2 and sum(g.fir_kernel)):
        raise UserError(
            f"generator.fir_kernel={g.fir_kernel} must be at least two taps, of a sum other than 0"
        )
    levels = len(g.channel_multipliers)
    factor = 2 ** (levels - 1)
    if config.data.image_size % factor:
        raise UserError(
            f"data.image_size={config.data.image_size} cannot be halved {levels - 1} times for the "
            f"{levels} levels of generator.channel_multipliers; use a multiple of {factor}"
        )
    _check_group_norms(g)


def _check_group_norms(g: ConfigDict) -> None:
    def fails(channels: int) -> bool:
        groups = min(channels // 4, 32)
        return groups == 0 or channels % groups != 0

    def works(base_channels: int) -> bool:
        return not any(fails(c) for _, c in ncsnpp_widths(g, base_channels))

    for place, channels in ncsnpp_widths(g, g.base_channels):
        if fails(channels):
            groups = max(1, min(channels // 4, 32))
            raise UserError(
                f"generator.base_channels={g.base_channels}: group normalisation cannot split the "
                f"{channels} channels {place} into {groups} equal groups of 4 or more; "
                f"use {_nearest(g.base_channels, works)}"
            )


def ncsnpp_widths(g: ConfigDict, base_channels: int) -> Iterator[tuple[str, int]]:
    """(place, channels) of everything that the NCSN++ generator normalises in groups."""
    widths = [base_channels * multiplier for multiplier in g.channel_multipliers]
    cat = g.progressive_input == "input_skip" and g.progressive_combine == "cat"
    h, skips = base_channels, [base_channels]
    for level, width in enumerate(widths):
        yield from ((f"of level {level} on the way down", c) for c in (h, width))
        h = width
        skips += [width] * g.num_res_blocks
        if level + 1 < len(widths):
            h = 2 * width if cat else width
            skips.append(h)
    yield "in the middle", h
    for level in reversed(range(len(widths))):
        for _ in range(g.num_res_blocks + 1):
            yield f"that level {level} concatenates on the way up", h + skips.pop()
            h = widths[level]
            yield f"of level {level} on the way up", h


# ---- discriminators, by discriminator.name


def _check_small(config: ConfigDict) -> None:
    _check_discriminator(config, factor=8)


def _check_large(config: ConfigDict) -> None:
    _check_discriminator(config, factor=64)


def _check_discriminator(config: ConfigDict, factor: int) -> None:
    _check_fields("discriminator.", config.discriminator, base_config().discriminator)
    _check_ranges(
        config,
        {
            "discriminator.base_channels": _POSITIVE,
            "discriminator.time_embedding_dim": _EMBEDDING,
        },
    )
    if config.data.image_size % factor:
        name = config.discriminator.name
        raise UserError(
            f"data.image_size={config.data.image_size} does not suit discriminator.name={name!r}, "
            f"which needs a multiple of {factor}"
        )


_CHECKS_BY_NAME = {
    "diffusion.schedule": {"vp": _check_vp, "geometric": _check_geometric},
    "generator.name": {"ncsnpp": _check_ncsnpp},
    "discriminator.name": {"small": _check_small, "large": _check_large},
    "objective.name": {"ddgan": _check_ddgan},
}
