"""Preparing data sets: from an archive, a folder, arrays or TFDS's own source to ArrayRecord."""

import importlib.util
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from ddgan_jax.data import archives, builders, catalog
from ddgan_jax.errors import UserError

PathLike = str | os.PathLike[str]


def prepare(
    dataset: str,
    *,
    data_dir: PathLike = "",
    archive: PathLike | None = None,
    images: PathLike | None = None,
    arrays: PathLike | None = None,
    download: bool = False,
) -> Path:
    """Writes a TFDS set as ArrayRecord and returns its folder.

    Args:
      dataset: its name. cifar10 and mnist come from `archive`, `arrays` or `download` and are
        then what TFDS itself reads by these names; `images` and `arrays` make a set of any other
        name; every other TFDS name is prepared by TFDS, which takes TensorFlow.
      data_dir: folder of prepared sets; "": $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      archive: the published archive of cifar10 or mnist, see `archives.read`.
      images: folder of PNG and JPEG files, one sub-folder per class or none.
      arrays: .npz file with `images`, uint8 (N, H, W, C) or (N, H, W), C 1 or 3, and optionally
        `labels`, int (N,), >= 0; becomes the split "train".
      download: fetch the published archive of cifar10 or mnist; it stays in data_dir/downloads.

    Raises:
      UserError: the set exists already (nothing is ever overwritten), the input is missing or
        broken, or TensorFlow is needed and not installed. What was there is unchanged.
    """
    folder = catalog.resolve_data_dir(data_dir)
    flags = {"--archive": archive, "--images": images, "--arrays": arrays, "--download": download}
    given = [flag for flag, value in flags.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other: give one")
    if dataset == "folder":
        raise UserError(
            "give the folder's set a name: ddgan prepare --dataset=NAME --images=FOLDER"
        )
    if dataset == "stacked_mnist":
        raise UserError("stacked_mnist is made from mnist when it is read: prepare mnist")
    if prepared := catalog.find_prepared(dataset, folder):
        raise UserError(
            f"{dataset} is already prepared in {prepared.data_dir}; nothing was changed"
        )
    if archive or download:
        return _from_archive(dataset, folder, archive)
    if arrays:
        return _from_arrays(dataset, folder, Path(arrays).expanduser())
    if images:
        _check_own_name(dataset)
        return builders.write_folder(images, folder, dataset)
    if dataset == "digits":
        return builders.write_digits(folder)
    if dataset in archives.PUBLISHED:
        raise UserError(f"where should {dataset} come from? {catalog.how_to_prepare(dataset)}")
    return _by_tfds(dataset, folder)


def _from_archive(name: str, folder: Path, archive: PathLike | None) -> Path:
    """No archive: download it."""
    if name not in archives.PUBLISHED:
        raise UserError(
            f"--archive and --download are for {' and '.join(archives.PUBLISHED)}; for {name}: "
            f"{catalog.how_to_prepare(name)}"
        )
    path = Path(archive) if archive else archives.fetch(name, folder / "downloads")
    splits = archives.read(name, path.expanduser())
    return builders.write(builders.stock_set(name, archives.CLASSES.get(name), splits, folder))


def _from_arrays(name: str, folder: Path, file: Path) -> Path:
    pixels, labels = _load_npz(file)
    if name in archives.PUBLISHED:
        shape = {"cifar10": (32, 32, 3), "mnist": (28, 28, 1)}[name]
        if pixels.shape[1:] != shape or labels is None or labels.max() > 9:
            raise UserError(f"{file} is not {name}: that is images {shape} with labels 0 to 9")
        splits = {"train": (pixels, labels)}
        return builders.write(builders.stock_set(name, archives.CLASSES.get(name), splits, folder))
    _check_own_name(name)
    classes = None if labels is None else int(labels.max()) + 1
    examples = {"train": builders.array_examples(pixels, labels)}
    description = f"The arrays of {file.name}."
    return builders.write(
        builders.ImageSet(name, description, pixels.shape[1:], classes, examples, folder)
    )


def _load_npz(file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """uint8 (N, H, W, C) and int (N,) or None."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            pixels = arrays["images"]
            labels = arrays.get("labels")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is no .npz file with an array `images`: {error}") from error
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if (
        pixels.dtype != np.uint8
        or pixels.ndim != 4
        or pixels.shape[-1] not in (1, 3)
        or not pixels.size
    ):
        raise UserError(
            f"`images` of {file} is {pixels.dtype} {pixels.shape}: it must be uint8 (N, H, W) or "
            "(N, H, W, C) with C 1 or 3"
        )
    if labels is not None and (
        labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0
    ):
        raise UserError(
            f"`labels` of {file} is {labels.dtype} {labels.shape}: it must be one integer >= 0 "
            f"for each of the {len(pixels)} images"
        )
    return pixels, labels


def _check_own_name(name: str) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"{name!r} cannot name a set: use a-z, 0-9 and _, a letter first")
    if name in (*catalog.OWN, *tfds.list_builders(with_community_datasets=False)):
        raise UserError(f"{name} is the name of another set: choose one of your own")


def _by_tfds(name: str, folder: Path) -> Path:
    """Has TFDS download and write one of its sets."""
    needs_tf = (
        f"preparing {name} runs TFDS's own code, which needs TensorFlow (reading does not): "
        'pip install "ddgan-jax[tf]"'
    )
    try:
        builder = catalog.tfds_builder(name, folder)
    except ImportError as error:
        raise UserError(needs_tf) from error
    manual = folder / "downloads" / "manual"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (manual.is_dir() and any(manual.iterdir())):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UserError(f"{name} must be fetched by hand into {manual}: {instructions}")
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(needs_tf)
    try:
        builder.download_and_prepare()
    except OSError as error:  # no connection, no space
        raise UserError(f"TFDS could not prepare {name} in {builder.data_dir}: {error}") from error
    return Path(builder.data_dir)
