"""Which settings make sense together: `validate` refuses the others before anything is compiled.

`check_model` is the part that every config must pass, also one that a file brought: its fields
have the right types and ranges, and its networks, its noise schedule and its objective can be.
`validate` adds what training needs. What a field may be depends on the networks and the noise
schedule that the config names; the table at the end holds one function for each of these names.
"""

from ml_collections import ConfigDict

from ddgan_jax.config import (
    DISCRIMINATORS,
    GENERATORS,
    LARGEST_IMAGE,
    MOST_IMAGES,
    MOST_TIMESTEPS,
    base_config,
)
from ddgan_jax.config.effects import check_effects
from ddgan_jax.config.evaluation_checks import check_evaluation
from ddgan_jax.config.fields import (
    BELOW_ONE,
    MOST_CLASSES,
    NOT_NEGATIVE,
    POSITIVE,
    check_choice,
    check_fields,
    check_known,
    check_ranges,
    get,
    nearest_multiples,
)
from ddgan_jax.config.network_checks import DISCRIMINATOR_CHECKS, GENERATOR_CHECKS
from ddgan_jax.data import mixture
from ddgan_jax.errors import UserError, shown

__all__ = ["check_choice", "check_known", "check_model", "validate"]


def validate(config: ConfigDict, num_devices: int | None = None, *, resumed: bool = False) -> None:
    """Refuse a config that cannot be trained.

    num_devices: how many accelerators share the batch, over all hosts; None: not known yet.
    resumed: whether the run exists already; then fields without effect stay as they are, since a
    run goes on with its own config alone. Raises UserError naming the first field that is wrong,
    and what would work.
    """
    check_model(config)
    _check_data_set(config.data)
    check_time_embedding(config)
    _check_learning_rates(config.optimizer)
    check_evaluation(config)
    _check_batch(config, num_devices)
    if not resumed:
        check_effects(config)


def check_model(config: ConfigDict) -> None:
    """Refuse a config with fields that are none, or whose model cannot be.

    For configs that a file brought as well: that of an export does not say where its images lay.
    Takes no more time and memory for one value than for another. Raises UserError as `validate`.
    """
    base = base_config()
    check_fields("", config, base)
    for section in base:
        if section not in ("generator", "discriminator"):
            check_fields(f"{section}.", config[section], base[section])
    for path, checks in _CHECKS_BY_NAME.items():
        check_choice(config, path, checks)
    for section, kinds in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        check_fields(f"{section}.", config[section], kinds[config[section].name]())
    check_ranges(config, _RANGES)
    _check_image_shape(config.data)
    check_choice(config, "train.compute_dtype", ("float32", "bfloat16"))
    check_choice(config, "train.mapping", ("pmap", "shard_map"))
    if config.train.shard_optimizer and config.train.mapping != "shard_map":
        raise UserError("train.shard_optimizer needs train.mapping=shard_map")
    for path, checks in _CHECKS_BY_NAME.items():
        checks[get(config, path)](config)
    _check_objective(config)
    _check_classes(config)


_RANGES = {
    "data.image_size": POSITIVE.up_to(LARGEST_IMAGE),
    "data.num_classes": NOT_NEGATIVE.up_to(MOST_CLASSES),
    "data.max_examples": NOT_NEGATIVE,
    "data.memory_limit_mib": NOT_NEGATIVE,
    "data.decode_threads": POSITIVE.up_to(1024),
    "optimizer.generator_learning_rate": POSITIVE,
    "optimizer.discriminator_learning_rate": POSITIVE,
    "optimizer.final_learning_rate": POSITIVE,
    "optimizer.beta1": BELOW_ONE,
    "optimizer.beta2": BELOW_ONE,
    "optimizer.ema_decay": BELOW_ONE,
    "optimizer.decay_steps": NOT_NEGATIVE,
    "optimizer.decay_interval_steps": POSITIVE,
    "train.batch_size": POSITIVE,
    "train.microbatches": POSITIVE,
    "train.num_steps": POSITIVE,
    "train.seed": NOT_NEGATIVE,
    "log.every_steps": POSITIVE,
    "log.samples_every_steps": POSITIVE,
    "log.num_samples": POSITIVE.up_to(1_000_000),
    "checkpoint.save_every_steps": POSITIVE,
    "checkpoint.keep_latest": POSITIVE,
    "checkpoint.keep_every_steps": NOT_NEGATIVE,
    "eval.every_steps": NOT_NEGATIVE,
    "eval.num_samples": POSITIVE.up_to(MOST_IMAGES),
    "sampling.chunk_size": POSITIVE.up_to(MOST_IMAGES),
    "sampling.num_steps": NOT_NEGATIVE.up_to(MOST_TIMESTEPS),
    "diffusion.num_timesteps": POSITIVE.up_to(MOST_TIMESTEPS),
    "objective.adversarial_weight": NOT_NEGATIVE,
    "objective.afd_weight": NOT_NEGATIVE,
    "objective.denoising_weight": NOT_NEGATIVE,
    "objective.augmentation_timesteps": NOT_NEGATIVE.up_to(MOST_TIMESTEPS),
    "objective.r1_gamma": NOT_NEGATIVE,
    "objective.r1_interval": POSITIVE,
}


def _check_image_shape(data: ConfigDict) -> None:
    shape = (data.image_size, data.channels)
    if data.name in mixture.SETS and shape != (1, 2):
        raise UserError(f"data.name={data.name!r} needs data.image_size=1 and data.channels=2")
    if data.name not in mixture.SETS and data.channels not in (1, 3):
        raise UserError(f"data.channels={data.channels} must be 1 (gray) or 3 (RGB)")


def _check_data_set(data: ConfigDict) -> None:
    if not data.name:
        raise UserError("data.name is empty: no data set chosen")
    if not data.split:
        raise UserError("data.split is empty; use 'train'")
    if data.name == "folder" and not data.path:
        raise UserError("data.name='folder' needs data.path, the folder of images")
    if data.path and data.name != "folder":
        raise UserError(f"data.path is only read with data.name='folder', not {shown(data.name)!r}")


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


# What a device sees at once enters the discriminator's minibatch standard deviation by so many.
_EXAMPLES_PER_GROUP = {"small": 4, "large": 4}


def _check_batch(config: ConfigDict, num_devices: int | None) -> None:
    if num_devices is None:
        return
    batch_size, parts = config.train.batch_size, config.train.microbatches
    group = _EXAMPLES_PER_GROUP.get(config.discriminator.name, 1)
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
    d = config.diffusion
    if config.sampling.num_steps not in (0, d.num_timesteps):
        raise UserError(
            f"sampling.num_steps={config.sampling.num_steps}: diffusion.schedule={d.schedule!r} "
            "samples in diffusion.num_timesteps steps only; use 0"
        )


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


def _check_one_shot(config: ConfigDict) -> None:
    _check_discrete_times(config)
    if config.diffusion.num_timesteps != 1 or config.objective.prediction == "noise":
        raise UserError(
            "diffusion.schedule='one_shot', pure noise in one step, needs "
            "diffusion.num_timesteps=1 and objective.prediction='x_0' or 'x_t'"
        )


def _check_cosine(config: ConfigDict) -> None:
    if config.objective.prediction == "noise":
        raise UserError(
            "objective.prediction='noise' cannot tell x_0 at the noisy end of "
            "diffusion.schedule='cosine', where no signal is left; use 'x_0'"
        )


# ---- the objective


def _check_objective(config: ConfigDict) -> None:
    o = config.objective
    choices = {
        "prediction": ("x_0", "x_t", "noise"),
        "judged": ("x_t", "x_0"),
        "discriminator_time": ("t", "t+1"),
        "afd_form": ("recon", "kl", "code"),
        "afd_scaling": ("none", "likelihood"),
    }
    for field, known in choices.items():
        check_choice(config, f"objective.{field}", known)
    if o.prediction != "x_0" and config.generator.get("output_tanh"):
        raise UserError(
            f"objective.prediction={o.prediction!r} needs generator.output_tanh=False, "
            "since its values leave [-1, 1]"
        )
    _check_augmentation(config)
    if o.prediction == "x_t" and (o.afd_weight or o.judged == "x_0"):
        raise UserError(
            "objective.prediction='x_t' tells no x_0, which objective.afd_weight > 0 and "
            "objective.judged='x_0' need"
        )
    if not o.adversarial_weight and not o.afd_weight:
        raise UserError(
            "objective.adversarial_weight=0 and objective.afd_weight=0 leave the generator "
            "nothing to minimise"
        )
    _check_heads(config)


def _check_augmentation(config: ConfigDict) -> None:
    o, d = config.objective, config.diffusion
    if o.augmentation_timesteps and (d.num_timesteps, o.prediction) != (1, "x_0"):
        raise UserError(
            f"objective.augmentation_timesteps={o.augmentation_timesteps} needs "
            "diffusion.num_timesteps=1 and objective.prediction='x_0'"
        )
    if o.augmentation_timesteps and (d.schedule == "cosine" or o.judged == "x_0" or o.afd_weight):
        raise UserError(
            f"objective.augmentation_timesteps={o.augmentation_timesteps} needs a discrete "
            "diffusion.schedule, objective.judged='x_t' and objective.afd_weight=0"
        )


_WITHOUT_HEADS = ("small", "large")


def _check_heads(config: ConfigDict) -> None:
    o, name = config.objective, config.discriminator.name
    heads = {
        "objective.afd_regression": o.afd_weight > 0 and o.afd_regression,
        "objective.denoising_weight": o.denoising_weight > 0,
    }
    for field, used in heads.items():
        if used and name in _WITHOUT_HEADS:
            raise UserError(
                f"{field} needs a discriminator with further heads, not "
                f"discriminator.name={name!r}; use 'unet'"
            )
        if used and o.judged == "x_0":
            raise UserError(f"{field} needs objective.judged='x_t': its head reads x_t")
    if not o.joint and name in _WITHOUT_HEADS:
        raise UserError(
            f"objective.joint=False: discriminator.name={name!r} always judges pairs; use 'unet'"
        )


_WITH_CLASSES = ("unet",)


def _check_classes(config: ConfigDict) -> None:
    if not config.data.num_classes:
        return
    for section in ("generator", "discriminator"):
        name = config[section].name
        if name not in _WITH_CLASSES:
            raise UserError(
                f"data.num_classes={config.data.num_classes}: {section}.name={name!r} cannot be "
                f"told the class; use {' or '.join(_WITH_CLASSES)}, or data.num_classes=0"
            )


_CHECKS_BY_NAME = {
    "diffusion.schedule": {
        "vp": _check_vp,
        "geometric": _check_geometric,
        "cosine": _check_cosine,
        "one_shot": _check_one_shot,
    },
    "generator.name": GENERATOR_CHECKS,
    "discriminator.name": DISCRIMINATOR_CHECKS,
}
