"""Check a config before anything is compiled: `validate`.

The rules for the model are in `model_checks`. The rules here are those for training it.
"""

from ml_collections import ConfigDict

from ddgan_jax.config.defaults import POINT_SETS, STACKED_SETS, has_points
from ddgan_jax.config.model_checks import (
    Rules,
    check_fields,
    check_model,
    check_time_embedding,
    refuse,
)
from ddgan_jax.config.observation import WRITERS
from ddgan_jax.config.shapes import (
    CONVOLUTIONAL,
    STDDEV_GROUP_SIZE,
    input_size,
    nearest_multiples,
    resolutions,
)
from ddgan_jax.errors import UserError, did_you_mean, shown
from ddgan_jax.metrics import names

__all__ = ["check_model", "check_time_embedding", "validate"]


def validate(config: ConfigDict, num_devices: int | None = None, *, resumed: bool = False) -> None:
    """Refuse a config that cannot be trained.

    num_devices: the number of accelerators that share the batch, over all hosts; None if it is not
    known yet. resumed: accept fields without effect, since a run resumes only with the config that
    it has. Raises UserError, which names the first wrong field and values that would work.
    """
    # The rules below read fields whose types and ranges this first check has established.
    check_model(config)
    refuse(_data_set_rules(config.data))
    check_time_embedding(config)
    refuse(_learning_rate_rules(config.optimizer))
    refuse(_writer_rules(config.log.writers))
    _check_evaluation(config)
    if num_devices is not None:
        _check_batch(config, num_devices)
    if not resumed:
        _check_effects(config)


def _data_set_rules(data: ConfigDict) -> Rules:
    is_folder, holdout = data.name == "folder", data.holdout
    # The base config has no data set on purpose, since a default one would train the wrong model
    # without a word.
    yield not data.name, "data.name is empty: no data set chosen"
    yield not data.split, "data.split is empty; use 'train'"
    yield (
        holdout >= 1 and holdout % 1,
        f"data.holdout={holdout:g} must be a share below 1 or a whole number of examples",
    )
    yield (
        holdout and data.name in POINT_SETS,
        f"data.holdout is for images, not for data.name={data.name!r}",
    )
    yield (
        # A path beside another name would be ignored, and the run would train on other images than
        # meant.
        data.path and not is_folder,
        f"data.path is only read with data.name='folder', not {shown(data.name)!r}",
    )


def _learning_rate_rules(optimizer: ConfigDict) -> Rules:
    # A constant rate has neither treads nor an end.
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


def _writer_rules(writers: str) -> Rules:
    wanted = [name.strip() for name in writers.split(",")] if writers else []
    for name in wanted:
        yield (
            name not in WRITERS,
            f"log.writers: {shown(name)!r} is not one of {', '.join(WRITERS)}"
            + did_you_mean(name, WRITERS),
        )
    yield len(set(wanted)) < len(wanted), f"log.writers={shown(writers)} names one twice"


def _check_evaluation(config: ConfigDict) -> None:
    """Refuse config.eval if its numbers cannot be computed. Raises UserError."""
    wanted = config.eval
    # Evaluation is often switched off for one run, without a change to its other fields.
    if not wanted.every_steps:
        return
    if has_points(config):
        raise UserError(f"eval.every_steps > 0 is for images, not for data.name={config.data.name}")
    if wanted.split == "holdout" and not config.data.holdout:
        raise UserError("eval.split='holdout' needs data.holdout > 0, the share that is held out")
    metrics = wanted.metrics.split(",")
    try:
        names.check(metrics, wanted.features)
        # Numbers during a run are compared with one another, so that any count of images will do.
        names.check_count(metrics, wanted.num_samples, allow_small=True)
    except UserError as error:
        raise UserError(f"eval.metrics={wanted.metrics}: {error}") from error
    if "modes" in metrics and config.data.name not in STACKED_SETS:
        known = " or ".join(map(repr, STACKED_SETS))
        raise UserError(f"eval.metrics: modes are counted on data.name={known}")
    # `best` is a plain name such as "fid", whatever features and count the number is of.
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

    # A device takes its images in `parts` microbatches, and each must hold whole groups.
    unit = num_devices * parts
    # The batch sizes that work are the multiples of a step.
    # Where groups may be smaller, a batch without one full group for each part is allowed too.
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

    R1, AFD and the evaluation are often switched off for one run, so their other fields are always
    accepted. Resolutions must occur at some level even if they are the defaults.
    """
    for name, section in check_fields(config).items():
        group = config[name]
        for key, field in section.items():
            if group[key] != field.default and not field.is_read(group):
                raise UserError(
                    f"{name}.{key}={group[key]} has no effect: it needs {field.needed(group)}; "
                    f"take it back to {field.default}"
                )
        # A resolution that no level has would be ignored without a word by the network.
        for key in ("attention_resolutions", "remat_resolutions"):
            there = resolutions(group, input_size(config, name)) if key in section else ()
            for pixels in group.get(key, ()):
                if pixels not in there:
                    raise UserError(
                        f"{name}.{key}={group[key]}: no level has {pixels} pixels; "
                        f"there are {', '.join(map(str, there))}"
                    )
