"""Which fields go together: `validate` refuses other configs before anything is compiled.

What a single field may hold is said where it is declared, in `defaults` and `networks`; here are
the rules between fields. `check_model` is the part that every config must pass, also one that a
file brought: its networks, its noise schedule and its objective can be. `validate` adds what
training needs.

A function of rules yields pairs: whether the config breaks the rule, and the message that says so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config.defaults import POINT_SETS, SECTIONS, has_points
from ddgan_jax.config.networks import NETWORKS, network_fields
from ddgan_jax.config.schema import Section, check_group, check_names
from ddgan_jax.config.shapes import (
    CONVOLUTIONAL,
    STDDEV_GROUP_SIZE,
    check_levels,
    check_ncsnpp_widths,
    check_unet,
    nearest_multiples,
    resolutions,
)
from ddgan_jax.errors import UserError, did_you_mean, shown
from ddgan_jax.metrics import names

Rules = Iterator[tuple[Any, str]]


def validate(config: ConfigDict, num_devices: int | None = None, *, resumed: bool = False) -> None:
    """Refuse a config that cannot be trained.

    num_devices: how many accelerators share the batch, over all hosts; None: not known yet.
    resumed: whether the run exists already; then fields without effect stay as they are, since a
    run goes on with its own config alone. Raises UserError naming the first field that is wrong,
    and what would work.
    """
    check_model(config)
    _refuse(_data_set_rules(config.data))
    check_time_embedding(config)
    _refuse(_learning_rate_rules(config.optimizer))
    _check_evaluation(config)
    if num_devices is not None:
        _check_batch(config, num_devices)
    if not resumed:
        _check_effects(config)


def check_model(config: ConfigDict) -> None:
    """Refuse a config with fields that are none, or whose model cannot be.

    For configs that a file brought as well: that of an export does not say where its images lay.
    Takes no more time and memory for one value than for another. Raises UserError as `validate`.
    """
    check_fields(config)
    _refuse(_image_rules(config.data))
    if config.train.shard_optimizer and config.train.mapping != "shard_map":
        raise UserError("train.shard_optimizer needs train.mapping=shard_map")
    _refuse(_schedule_rules(config))
    for role in NETWORKS:
        _NETWORK_CHECKS[config[role].name](config, role)
    _refuse(_objective_rules(config))
    _refuse(_head_rules(config))


def check_fields(config: Any, *, complete: bool = True) -> Mapping[str, Section]:
    """Return the sections of a config; refuse unknown fields, and values that they cannot have.

    config: anything at all. complete: also refuse a config that lacks sections or fields; its
    networks must have their names in any case. Raises UserError.
    """
    sections = dict(SECTIONS)
    check_names("", config, SECTIONS | NETWORKS)
    for name in SECTIONS:
        if complete and name not in config:
            raise UserError(f"{name} is missing")
    for role in NETWORKS:
        sections[role] = network_fields(role, config.get(role, {}))
    for name, section in sections.items():
        if name in config:
            check_group(f"{name}.", config[name], section, complete=complete)
    return sections


def check_time_embedding(config: ConfigDict) -> None:
    """Refuse an embedding that is not defined at t = 0.

    There are published networks with it, which can be imported, but neither trained nor drawn from.
    """
    d, g = config.diffusion, config.generator
    embeds_logarithm = g.get("time_embedding") == "fourier" and g.get("time_conditional", True)
    if embeds_logarithm and d.schedule != "cosine":
        raise UserError(
            "generator.time_embedding='fourier' embeds log(t), and t = 0 occurs in "
            f"diffusion.schedule={d.schedule!r}; use 'positional'"
        )


def _refuse(rules: Iterable[tuple[Any, str]]) -> None:
    for is_broken, message in rules:
        if is_broken:
            raise UserError(message)


# ---- data and training


def _image_rules(data: ConfigDict) -> Rules:
    points = data.name in POINT_SETS
    yield (
        points and (data.image_size, data.channels) != (1, 2),
        f"data.name={data.name!r} needs data.image_size=1 and data.channels=2",
    )
    yield (
        not points and data.channels not in (1, 3),
        f"data.channels={data.channels} must be 1 (gray) or 3 (RGB)",
    )


def _data_set_rules(data: ConfigDict) -> Rules:
    is_folder = data.name == "folder"
    yield not data.name, "data.name is empty: no data set chosen"
    yield not data.split, "data.split is empty; use 'train'"
    yield (
        is_folder and not data.path,
        "data.name='folder' needs data.path, the folder of images",
    )
    yield (
        data.path and not is_folder,
        f"data.path is only read with data.name='folder', not {shown(data.name)!r}",
    )


def _learning_rate_rules(optimizer: ConfigDict) -> Rules:
    if not optimizer.decay_steps:
        return
    yield (
        optimizer.decay_interval_steps > optimizer.decay_steps,
        f"optimizer.decay_interval_steps={optimizer.decay_interval_steps} must not exceed "
        f"optimizer.decay_steps={optimizer.decay_steps}",
    )
    for name in ("generator_learning_rate", "discriminator_learning_rate"):
        yield (
            optimizer[name] < optimizer.final_learning_rate,
            f"optimizer.final_learning_rate={optimizer.final_learning_rate} is above "
            f"optimizer.{name}={optimizer[name]}: the rate would grow",
        )


def _check_evaluation(config: ConfigDict) -> None:
    """Refuse config.eval, if it is switched on, where its numbers could not be computed."""
    wanted = config.eval
    if not wanted.every_steps:
        return
    if has_points(config):
        raise UserError(f"eval.every_steps > 0 is for images, not for data.name={config.data.name}")
    metrics = wanted.metrics.split(",")
    try:
        names.check(metrics, wanted.features)
        names.check_count(metrics, wanted.num_samples, allow_small=True)
    except UserError as error:
        raise UserError(f"eval.metrics={wanted.metrics}: {error}") from error
    if "modes" in metrics and config.data.name != "stacked_mnist":
        raise UserError("eval.metrics: modes are counted on data.name='stacked_mnist'")
    numbers = names.value_names(metrics, wanted.features, wanted.num_samples)
    if wanted.best and wanted.best not in numbers:
        raise UserError(
            f"eval.best={shown(wanted.best)!r} is not one of {', '.join(numbers)}"
            + did_you_mean(wanted.best, numbers)
        )


def _check_batch(config: ConfigDict, num_devices: int) -> None:
    batch_size, parts = config.train.batch_size, config.train.microbatches
    group = STDDEV_GROUP_SIZE if config.discriminator.name in CONVOLUTIONAL else 1
    # Smaller groups, where a device sees fewer images, would depend on the number of devices.
    may_be_smaller = config.discriminator.get("stddev_groups") != "neighbours"

    unit = num_devices * parts
    # The sizes that work are the multiples of a step.
    step = unit if may_be_smaller and batch_size < unit * group else unit * group
    if batch_size % step == 0:
        return
    at_once, rest = divmod(batch_size, unit)
    shares = f"{num_devices} devices" + (f" x {parts} microbatches" if parts > 1 else "")
    reason = f"is not divisible by the {shares}"
    if rest == 0:
        reason = (
            f"gives each of {shares} {at_once} images, which do not form groups of {group} "
            "(minibatch standard deviation of the discriminator)"
        )
    advice = nearest_multiples(batch_size, step)
    raise UserError(f"train.batch_size={batch_size} {reason}; use {advice}")


def _check_effects(config: ConfigDict) -> None:
    """Refuse fields that nothing would read, unless they have their defaults.

    What is often switched off for one run on the command line keeps its other fields without a
    word: R1, the evaluation during a run, AFD. Resolutions must be those of some level even by
    default.
    """
    for name, section in check_fields(config).items():
        group = config[name]
        for key, field in section.items():
            if group[key] != field.default and not field.is_read(group):
                raise UserError(
                    f"{name}.{key}={group[key]} has no effect: it needs {field.needed(group)}; "
                    f"take it back to {field.default}"
                )
        for key in ("attention_resolutions", "remat_resolutions"):
            there = resolutions(group, config.data.image_size) if key in section else ()
            for pixels in group.get(key, ()):
                if pixels not in there:
                    raise UserError(
                        f"{name}.{key}={group[key]}: no level has {pixels} pixels; "
                        f"there are {', '.join(map(str, there))}"
                    )


# ---- the noise schedule and the objective


def _schedule_rules(config: ConfigDict) -> Rules:
    d, prediction = config.diffusion, config.objective.prediction
    betas = f"not beta_min={d.beta_min} and beta_max={d.beta_max}"
    if d.schedule == "cosine":
        yield (
            prediction == "noise",
            "objective.prediction='noise' cannot tell x_0 at the noisy end of "
            "diffusion.schedule='cosine', where no signal is left; use 'x_0'",
        )
        return
    yield (
        config.sampling.num_steps not in (0, d.num_timesteps),
        f"sampling.num_steps={config.sampling.num_steps}: diffusion.schedule={d.schedule!r} "
        "samples in diffusion.num_timesteps steps only; use 0",
    )
    yield (
        d.schedule == "vp" and not 0 <= d.beta_min < d.beta_max,
        f"diffusion.schedule='vp' needs 0 <= beta_min < beta_max, {betas}",
    )
    yield (
        d.schedule == "geometric" and not 0 < d.beta_min < d.beta_max < 1,
        f"diffusion.schedule='geometric' needs 0 < beta_min < beta_max < 1, {betas}; try 0.0001 "
        "and 0.999",
    )
    yield (
        d.schedule == "one_shot" and (d.num_timesteps != 1 or prediction == "noise"),
        "diffusion.schedule='one_shot', pure noise in one step, needs "
        "diffusion.num_timesteps=1 and objective.prediction='x_0' or 'x_t'",
    )


def _objective_rules(config: ConfigDict) -> Rules:
    o, d = config.objective, config.diffusion
    augmentation = f"objective.augmentation_timesteps={o.augmentation_timesteps} needs"
    yield (
        o.prediction != "x_0" and config.generator.get("output_tanh"),
        f"objective.prediction={o.prediction!r} needs generator.output_tanh=False, "
        "since its values leave [-1, 1]",
    )
    yield (
        o.augmentation_timesteps and (d.num_timesteps, o.prediction) != (1, "x_0"),
        f"{augmentation} diffusion.num_timesteps=1 and objective.prediction='x_0'",
    )
    yield (
        o.augmentation_timesteps and (d.schedule == "cosine" or o.judged == "x_0" or o.afd_weight),
        f"{augmentation} a discrete diffusion.schedule, objective.judged='x_t' and "
        "objective.afd_weight=0",
    )
    yield (
        o.prediction == "x_t" and (o.afd_weight or o.judged == "x_0"),
        "objective.prediction='x_t' tells no x_0, which objective.afd_weight > 0 and "
        "objective.judged='x_0' need",
    )
    yield (
        not o.adversarial_weight and not o.afd_weight,
        "objective.adversarial_weight=0 and objective.afd_weight=0 leave the generator "
        "nothing to minimise",
    )


def _head_rules(config: ConfigDict) -> Rules:
    """Yield the rules of what a network can be asked for: further heads, classes."""
    o, name = config.objective, config.discriminator.name
    heads = {
        "objective.afd_regression": o.afd_weight > 0 and o.afd_regression,
        "objective.denoising_weight": o.denoising_weight > 0,
    }
    for field, used in heads.items():
        yield (
            used and name in CONVOLUTIONAL,
            f"{field} needs a discriminator with further heads, not discriminator.name={name!r}; "
            "use 'unet'",
        )
        yield (
            used and o.judged == "x_0",
            f"{field} needs objective.judged='x_t': its head reads x_t",
        )
    yield (
        not o.joint and name in CONVOLUTIONAL,
        f"objective.joint=False: discriminator.name={name!r} always judges pairs; use 'unet'",
    )
    for role in NETWORKS:
        yield (
            config.data.num_classes and config[role].name != "unet",
            f"data.num_classes={config.data.num_classes}: {role}.name={config[role].name!r} cannot "
            "be told the class; use unet, or data.num_classes=0",
        )


# ---- networks, by name


def _check_ncsnpp(config: ConfigDict, role: str) -> None:
    g = config[role]
    if g.fir and not (len(g.fir_kernel) >= 2 and sum(g.fir_kernel)):
        raise UserError(
            f"{role}.fir_kernel={g.fir_kernel} must be at least two taps, of a sum other than 0"
        )
    check_levels(g, config.data.image_size, group=f"{role}.", size="data.")
    check_ncsnpp_widths(g, f"{role}.")


def _check_convolutional(config: ConfigDict, role: str) -> None:
    name, size = config[role].name, config.data.image_size
    factor = CONVOLUTIONAL[name].factor
    if size % factor:
        raise UserError(
            f"data.image_size={size} does not suit {role}.name={name!r}, which needs a multiple of "
            f"{factor}"
        )


def _check_unet(config: ConfigDict, role: str) -> None:
    check_unet(config[role], config.data.image_size, group=f"{role}.", size="data.")


def _check_mlp(config: ConfigDict, role: str) -> None:
    if config.data.image_size != 1:
        raise UserError(
            f"{role}.name='mlp' is for the points of {', '.join(POINT_SETS)}, not for images"
        )


_NETWORK_CHECKS: Mapping[str, Callable[[ConfigDict, str], None]] = {
    "ncsnpp": _check_ncsnpp,
    "small": _check_convolutional,
    "large": _check_convolutional,
    "unet": _check_unet,
    "mlp": _check_mlp,
}
