"""Prepare a data set as ArrayRecord: from an archive, a folder, arrays, Parquet, or by TFDS."""

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds

from ddgan_jax.data import array_files, builders, catalog, folder_sets, published, stacks
from ddgan_jax.data.prepare import archives
from ddgan_jax.data.prepared import Metadata
from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files import locks, paths

PathLike = str | os.PathLike[str]
Report = Callable[[str], None]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def prepare(
    dataset: str,
    *,
    data_dir: PathLike = "",
    archive: PathLike | None = None,
    images: PathLike | None = None,
    arrays: PathLike | None = None,
    parquet: PathLike | None = None,
    download: bool = False,
    allow_unpublished: bool = False,
    report: Report = print,
    warn: Report = _to_stderr,
) -> Path:
    """Write a TFDS set as ArrayRecord and return its folder.

    Args:
      dataset: Its name. cifar10 and mnist come from `archive`, `arrays` or `download`, and TFDS
        itself reads them by these names. `images`, `arrays` and `parquet` make a set of any other
        name. Every other TFDS name is prepared by TFDS, which takes TensorFlow.
      data_dir: The folder of prepared sets; "" for $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      archive: The published archive of cifar10 or mnist, see `archives.read`.
      images: A folder or zip file of images, see `image_folders` and `image_layouts`.
      arrays: An .npz or .npy file of uint8 images (n, h, w, c) or (n, h, w), c 1 or 3, and perhaps
        labels, see `array_files`. It becomes the split "train".
      parquet: A Parquet or Arrow file, or a folder of them, see `tables`.
      download: Fetch the published archive of cifar10 or mnist; it stays in data_dir/downloads.
      allow_unpublished: Accept an `archive` that is not the published one.
      report: Takes lines that count images and classes, and what was left out.
      warn: Takes lines about what may be a mistake.

    Raises UserError if the set exists already (nothing is ever overwritten), if the input is
    missing or broken, or if TensorFlow is needed and not installed: then what was there is
    unchanged. Raises BusyError if another process prepares the same set.
    """
    folder = Path(catalog.resolve_data_dir(data_dir, to_write=True))
    origins = {
        "archive": archive,
        "images": images,
        "arrays": arrays,
        "parquet": parquet,
        "download": download,
    }
    # Everything that can be refused without reading the input is refused first.
    _check_request(dataset, [name for name, value in origins.items() if value], allow_unpublished)
    # A prepared set is never written anew: runs may be reading it, or have begun on it.
    if found := catalog.find_prepared(dataset, folder):
        raise UserError(f"{dataset} is already prepared in {found.data_dir}; nothing was changed")
    if archive or download:
        return _from_archive(dataset, folder, archive, allow_unpublished, report, warn)
    if arrays:
        return _from_arrays(dataset, folder, arrays, report)
    if images:
        _check_own_name(dataset)
        return _write(folder_sets.builder_of(images, folder, dataset, report), folder)
    if parquet:
        _check_own_name(dataset)
        # Arrow takes a second to import, which other sets need not wait for.
        from ddgan_jax.data import table_sets

        return _write(table_sets.builder_of(parquet, folder, dataset, report), folder)
    if dataset == "digits":
        return builders.write_digits(folder)
    if dataset in published.PUBLISHED:
        raise UserError(f"where should {dataset} come from? {catalog.how_to_prepare(dataset)}")
    return _by_tfds(dataset, folder)


def _check_request(dataset: str, given: list[str], allow_unpublished: bool) -> None:
    """Refuse a name that no set can have, and origins that exclude each other."""
    if len(given) > 1:
        raise UserError(
            f"{' and '.join(f'`{name}`' for name in given)} exclude each other: give one"
        )
    if allow_unpublished and "archive" not in given:
        raise UserError("`allow_unpublished` is for an `archive`")
    if dataset == "folder":
        raise UserError(
            "give the folder's set a name: ddgan prepare --dataset=NAME --images=FOLDER"
        )
    if stack := stacks.SETS.get(dataset):
        raise UserError(
            f"{dataset} is made from {stack.gray} when it is read: prepare {stack.gray}"
        )
    if not catalog.NAME.fullmatch(dataset):
        raise UserError(f"'{shown(dataset)}' cannot name a set: use a-z, 0-9 and _, a letter first")


def _write(builder: tfds.core.DatasetBuilder, folder: Path) -> Path:
    """Write a set whose input was read, unless another process writes it or has written it."""
    with locks.only_writer(folder / builder.name):
        # Another process may have written the set while this one waited for the lock.
        if found := catalog.find_folder(builder.name, folder):
            raise UserError(f"{builder.name} is already prepared in {found}; nothing was changed")
        return builders.write(builder)


def _from_archive(
    name: str,
    folder: Path,
    archive: PathLike | None,
    allow_unpublished: bool,
    report: Report,
    warn: Report,
) -> Path:
    """Write a published set from its archive, which is downloaded if none is given."""
    if name not in published.PUBLISHED:
        raise UserError(
            f"`archive` and `download` are for {' and '.join(published.PUBLISHED)}; for {name}: "
            f"{catalog.how_to_prepare(name)}"
        )
    splits = archives.read(
        name,
        archive or published.fetch(name, folder / "downloads"),
        allow_unpublished=allow_unpublished,
        report=warn,
    )
    return _write_stock(name, folder, splits, report)


def _from_arrays(name: str, folder: Path, file: PathLike, report: Report) -> Path:
    found = array_files.open_images(file)
    pixels, labels = array_files.uint8_images(found), found.labels
    if name in published.PUBLISHED:
        shape = {"cifar10": (32, 32, 3), "mnist": (28, 28, 1)}[name]
        # TFDS will read the set by its name, and expects these shapes.
        if pixels.shape[1:] != shape or labels is None or labels.max() > 9:
            raise UserError(
                f"{shown(file, 300)} is not {name}: that is images {shape} with labels 0 to 9"
            )
        return _write_stock(name, folder, {"train": (pixels, labels)}, report)
    _check_own_name(name)
    classes = None
    if labels is not None:
        classes = array_files.num_classes(labels, shown(file, 300))
    report(builders.counted({"train": len(pixels)}))
    report("classes: none" if classes is None else f"classes: {classes:,}")
    report(builders.sizes([min(pixels.shape[1:3])]))
    examples = {"train": builders.array_examples(pixels, labels)}
    description = f"The arrays of {shown(Path(paths.user_path(file, 'arrays')).name)}."
    # A resumed run compares this digest, and so notices a set that was made from other arrays.
    metadata = Metadata(builders.arrays_digest(pixels, labels))
    builder = builders.ImageSet(
        name, description, pixels.shape[1:], classes, examples, folder, metadata
    )
    return _write(builder, folder)


def _write_stock(name: str, folder: Path, splits: archives.Splits, report: Report) -> Path:
    report(builders.counted({split: len(labels) for split, (_, labels) in splits.items()}))
    report(f"classes: {archives.NUM_CLASSES}")
    # A missing class is allowed here, since the number of classes is that of the published set.
    for split, (_, labels) in splits.items():
        if missing := array_files.missing_classes(labels, archives.NUM_CLASSES):
            report(f"classes without an image in {split}: {missing}")
    return _write(builders.stock_set(name, published.CLASSES.get(name), splits, folder), folder)


def _check_own_name(name: str) -> None:
    # TFDS makes folders of names, and its own names have this form.
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"'{shown(name)}' cannot name a set: use a-z, 0-9 and _, a letter first")
    # A set of a known name would be read in place of the one that everybody means by it.
    if name in (*catalog.OWN, *tfds.list_builders(with_community_datasets=False)):
        raise UserError(f"{name} is the name of another set: choose one of your own")


def _by_tfds(name: str, folder: Path) -> Path:
    """Have TFDS download and write one of its sets."""
    needs_tf = (
        f"preparing {name} runs TFDS's own code, which needs TensorFlow (reading does not): "
        'pip install "ddgan-jax[tf]"'
    )
    try:
        builder = catalog.tfds_builder(name, folder)
    except ImportError as error:
        raise UserError(needs_tf) from error
    # TFDS's own message about a missing file comes late and does not name the folder.
    manual = folder / "downloads" / "manual"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (manual.is_dir() and any(manual.iterdir())):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UserError(f"{name} must be fetched by hand into {manual}: {instructions}")
    # Before the download, which may take hours and ends with the same need.
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(needs_tf)
    try:
        with locks.only_writer(folder / builder.name):
            builder.download_and_prepare()
    # Such as a lost connection or a full disk.
    except OSError as error:
        raise UserError(
            f"TFDS could not prepare {name} in {builder.data_dir}: {reason(error)}"
        ) from error
    return Path(builder.data_dir)
