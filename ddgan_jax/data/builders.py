"""Writing TFDS sets (ArrayRecord) without TensorFlow.

Every set is written into a temporary folder beside its place and renamed at the end: a build that
dies leaves nothing that would be taken for a prepared set, and of two processes that build the
same set one wins and both read the same bytes.
"""

import contextlib
import hashlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ddgan_jax.data import catalog, images
from ddgan_jax.data.datasets import FILE
from ddgan_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")

Examples = Iterable[tuple[int | bytes, dict[str, Any]]]  # key, which fixes the place; features


class ImageSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS set of our own: feature "image", and "label" where there are classes.

    shape: of the images; None where it varies, as it may in sets made from files, which also have
    the feature "image/filename". classes: their number or their names, None: no labels.
    splits: the examples of each split.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # nothing to download, so no list of checksums beside the code

    def __init__(
        self,
        name: str,
        description: str,
        shape: tuple[int | None, int | None, int],
        classes: int | Sequence[str] | None,
        splits: Mapping[str, Examples],
        data_dir: Path,
    ):
        self.name = name
        self._description, self._shape = description, shape
        self._classes, self._splits = classes, splits
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=self._shape)}
        if None in self._shape:  # made from files
            features[FILE] = tfds.features.Text()
        if isinstance(self._classes, int):
            features["label"] = tfds.features.ClassLabel(num_classes=self._classes)
        elif self._classes is not None:
            features["label"] = tfds.features.ClassLabel(names=self._classes)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._description,
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: self._generate_examples(ex) for split, ex in self._splits.items()}

    def _generate_examples(self, examples: Examples) -> Iterator:
        yield from examples


def stock_set(
    name: str,
    classes: Sequence[str] | None,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    data_dir: Path,
) -> tfds.core.DatasetBuilder:
    """TFDS's own builder of `name`, which reads arrays instead of downloading files.

    The set it writes has the name, version, features and order of the one that TFDS would have
    written, so that `tfds.data_source(name)` reads it.

    Args:
      name: a TFDS set with features "image", "label" and perhaps "id".
      classes: names of the labels, None where TFDS names none.
      splits: uint8 (N, H, W, C) images and int (N,) labels of each split, in published order.
      data_dir: folder of prepared sets.
    """
    stock = tfds.builder_cls(name)

    class Given(stock, skip_registration=True):
        name = stock.name
        code_path = None  # as above

        def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
            if classes is not None:
                self.info.features["label"].names = classes
            ids = "id" in self.info.features
            return {
                split: array_examples(pixels, labels, f"{split}_" if ids else "")
                for split, (pixels, labels) in splits.items()
            }

    Given.__module__ = stock.__module__  # recorded in the set as its origin
    return Given(data_dir=data_dir, file_format="array_record")


def write(builder: tfds.core.DatasetBuilder) -> Path:
    """Writes the builder's set unless it is there already; returns its folder.

    Raises:
      UserError: the folder cannot be written, or something else is in the set's place.
    """
    folder = Path(builder.data_dir)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download
            builder.download_and_prepare()
    except OSError as error:
        if not catalog.is_prepared(folder):  # otherwise another process was faster
            raise UserError(
                f"cannot write the set {builder.name} to {folder}: {error.strerror or error}; "
                "choose another folder with data.dir or TFDS_DATA_DIR"
            ) from error
    if not catalog.is_prepared(folder):
        raise UserError(f"{folder} exists but is no prepared TFDS set: move it away")
    return folder


def array_examples(pixels: np.ndarray, labels: np.ndarray | None, ids: str = "") -> Examples:
    """Examples from uint8 (N, H, W, C) images and int (N,) labels or None.

    ids: if not empty, each also gets a feature "id", this and its number in five digits.
    """
    for i, image in enumerate(pixels):
        example = {"image": images.encode_png(image)}
        if labels is not None:
            example["label"] = int(labels[i])
        if ids:
            example["id"] = f"{ids}{i:05d}"
        yield i, example


def write_digits(data_dir: Path) -> Path:
    """Writes scikit-learn's 1,797 handwritten digits, 8x8x1, labels 0 .. 9, unless written.

    The pixels' 17 gray levels v are stored as round(v * 255 / 16).
    """
    folder = data_dir / "digits" / str(ImageSet.VERSION)
    if catalog.is_prepared(folder):  # importing scikit-learn takes seconds
        return folder
    if importlib.util.find_spec("sklearn") is None:
        raise UserError('data.name = digits needs scikit-learn: pip install "ddgan-jax[demo]"')
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return write(
        ImageSet(
            "digits",
            "Handwritten digits, 8x8 gray: the UCI set that scikit-learn carries.",
            pixels.shape[1:],
            10,
            {"train": array_examples(pixels, digits.target)},
            data_dir,
        )
    )


def write_folder(path: str | os.PathLike[str], data_dir: Path, name: str = "") -> Path:
    """Writes the PNG and JPEG files below a folder, as they are, as a TFDS set, unless written.

    If every image lies in a sub-folder, the first level of sub-folders are the classes.

    Args:
      path: folder, searched to any depth. Other files and hidden ones are ignored.
      data_dir: folder of prepared sets.
      name: of the set; "": one that changes whenever the files do, so that these are read anew.

    Raises:
      UserError: no such folder, no image in it, or a file that cannot be decoded.
    """
    root = Path(path).expanduser().resolve()
    files = _image_files(root)
    classes = sorted({file.parts[0] for file in files if len(file.parts) > 1})
    labelled = all(len(file.parts) > 1 for file in files)
    return write(
        ImageSet(
            name or f"folder_{_fingerprint(root, files)}",
            f"The images below {root}.",
            (None, None, 3),
            classes if labelled else None,
            {"train": _file_examples(root, files, labelled)},
            data_dir,
        )
    )


def _image_files(root: Path) -> list[Path]:
    """Relative paths, sorted."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: give the folder of images")
    files = [file.relative_to(root) for file in root.rglob("*") if file.suffix.lower() in SUFFIXES]
    files = [f for f in files if not any(part.startswith(".") for part in f.parts)]
    if not files:
        raise UserError(f"no PNG or JPEG file below {root}")
    return sorted(files)


def _fingerprint(root: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(os.fsencode(root))
    for file in files:
        status = (root / file).stat()
        digest.update(b"\0%s\0%d\0%d" % (bytes(file), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:16]


def _file_examples(root: Path, files: Sequence[Path], labelled: bool) -> Examples:
    for file in files:
        try:
            encoded = (root / file).read_bytes()
            images.decode(encoded, channels=3)
        except images.BROKEN as error:
            raise UserError(f"{root / file} is no readable PNG or JPEG file: {error}") from error
        label = {"label": file.parts[0]} if labelled else {}
        yield bytes(file), {"image": encoded, FILE: bytes(file), **label}
