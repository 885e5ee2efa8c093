"""Look for the mistakes that end a run, before a machine is asked for: for `ddgan check`."""

import os
from collections.abc import Iterator

from ml_collections import ConfigDict

from ddgan_jax import data
from ddgan_jax.config import has_points, method_title, run_config
from ddgan_jax.config.checks import validate
from ddgan_jax.data import catalog
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files.paths import is_bucket, run_folder_path
from ddgan_jax.files.run_folder import Report, RunFolder
from ddgan_jax.inspection.memory import Memory, estimate

GIB = 2**30
# Of a device's memory, after what the runtime keeps for itself.
USABLE = 0.9


def check_run(
    config: ConfigDict,
    workdir: str = "",
    *,
    devices: int = 0,
    memory_gib: int = 0,
    opens_data: bool = True,
    elsewhere: bool = False,
    report: Report,
) -> Iterator[str]:
    """Yield a line about each thing that is right. Raises UserError for the first that is not.

    workdir: the run folder, "" if it is not known. devices: those of all hosts, 0 if not known.
    memory_gib: of each device, 0 for no estimate. opens_data: whether the data set is opened.
    elsewhere: the run is for other machines, on which folders may be that are not here. report:
    takes a line about files that are damaged or left out.
    """
    folder = None
    if workdir:
        path = run_folder_path(workdir, "workdir") if not is_bucket(workdir) else None
        folder = RunFolder(path) if path else None
    resumed = folder is not None and folder.config.exists()
    validate(config, devices or None, resumed=resumed)
    method = method_title(config)
    yield f"config   {method} on {config.data.name}, {config.train.num_steps:,} steps"
    if devices:
        batch_size = config.train.batch_size
        share = f"{batch_size // devices:,} on each of {devices:,} devices"
        yield f"batch    {batch_size:,} images, {share}"
    if folder:
        run_config.check_same_run(folder, config, report=report)
        yield f"run      {'goes on' if resumed else 'begins'} in {shown(folder.path, 300)}"
    # Whatever is opened, a place that the program cannot read is a mistake.
    catalog.check_places(config.data)
    unseen = _unseen(config.data) if elsewhere else ""
    if unseen or not opens_data:
        yield f"data     not looked at{unseen}"
    else:
        yield f"data     {_images(config, report)}"
    if memory_gib:
        yield f"memory   {_fit(config, devices or 1, memory_gib)}"


def _unseen(section: ConfigDict) -> str:
    """Return why the set cannot be seen from this machine, or "" if it could be."""
    # Without a folder of its own a run reads a home folder, which machines of a cluster share.
    named = section.path or section.dir or os.environ.get("TFDS_DATA_DIR", "")
    if is_bucket(named):
        return f": {shown(named)} is a bucket"
    if named and not os.path.exists(os.path.expanduser(named)):
        return f": {shown(named)} is not on this machine"
    return ""


def _images(config: ConfigDict, report: Report) -> str:
    """Return what the set holds, after its first example has been read."""
    config = config.copy_and_resolve_references()
    # Decoding all images into memory would take minutes, and find nothing that training needs.
    config.data.memory_limit_mib = 0
    info = data.open_dataset(config, report=report).info
    classes = f", {info.num_classes:,} classes" if info.num_classes else ""
    return f"{info.num_examples:,} {'points' if has_points(config) else 'images'}{classes}"


def _fit(config: ConfigDict, devices: int, gib: int) -> str:
    """Return what a device needs of its memory. Raises UserError if it has less."""
    memory = estimate(config)
    need = _need(memory, config, devices)
    if need <= USABLE * gib * GIB:
        return f"about {need / GIB:.1f} GiB of {gib} GiB on a device"
    at_once = config.train.batch_size // devices // config.train.microbatches
    raise UserError(
        f"training needs about {need / GIB:.1f} GiB of a device and has {USABLE:.0%} of {gib} GiB: "
        f"{memory.of_device(0, devices) / GIB:.1f} GiB for state and gradients, "
        f"{memory.activations / GIB:.2g} GiB for each of {max(at_once, 1):,} images; "
        f"{_what_fits(memory, config, devices, gib)}"
    )


def _need(memory: Memory, config: ConfigDict, devices: int) -> int:
    at_once = config.train.batch_size // devices // config.train.microbatches
    return memory.of_device(max(at_once, 1), devices)


def _what_fits(memory: Memory, config: ConfigDict, devices: int, gib: int) -> str:
    """Return the advice of a message: the fewest microbatches with which the batch would fit."""
    changed = config.copy_and_resolve_references()
    share = config.train.batch_size // devices
    for parts in range(config.train.microbatches + 1, share + 1):
        changed.train.microbatches = parts
        if share % parts or _need(memory, changed, devices) > USABLE * gib * GIB:
            continue
        try:
            # The discriminator may need groups of images that so many parts would break.
            validate(changed, devices, resumed=True)
        except UserError:
            continue
        return f"train.microbatches={parts} would fit"
    return "more devices, larger ones or a smaller model would fit"
