"""Write TFDS sets (ArrayRecord) without TensorFlow.

Every set is written into a temporary folder beside its place and renamed at the end. A build that
dies leaves nothing that would be taken for a prepared set. Of two processes that build the same set
one wins, and both read the same bytes.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tensorflow_datasets as tfds

from ddgan_jax import progress
from ddgan_jax.data import catalog, decode, prepared, record_writer
from ddgan_jax.data.datasets import FILE
from ddgan_jax.data.prepared import Metadata
from ddgan_jax.errors import UserError, reason, shown

# The file and its source are described beside it.
_DIGITS = Path(__file__).parent / "shipped" / "digits.npz"

# Keys and features. TFDS orders the examples of a set by a hash of their keys.
Examples = Iterable[tuple[int | bytes, dict[str, Any]]]


class ImageSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS set of our own: feature "image", and "label" where there are classes.

    shape: the shape of the images, with None where it varies, as it may in sets made from files.
    Such sets also have the feature "image/filename". classes: their number or names, None without
    labels. splits: the examples of each split. metadata: facts that are stored with the set; a
    resumed run compares the digest among them.
    """

    VERSION = tfds.core.Version("1.0.0")
    # TFDS would look for a list of checksums of downloads beside the code.
    code_path = None

    def __init__(
        self,
        name: str,
        description: str,
        shape: tuple[int | None, int | None, int],
        classes: int | Sequence[str] | None,
        splits: Mapping[str, Examples],
        data_dir: Path,
        metadata: Metadata | None = None,
    ):
        # TFDS takes each set for a class of its own, which carries the name.
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        self._description, self._shape = description, shape
        self._classes, self._splits, self._metadata = classes, splits, metadata
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {"image": tfds.features.Image(shape=self._shape)}
        # The set is made from files.
        if None in self._shape:
            features[FILE] = tfds.features.Text()
        if isinstance(self._classes, int):
            features["label"] = tfds.features.ClassLabel(num_classes=self._classes)
        elif self._classes is not None:
            features["label"] = tfds.features.ClassLabel(names=self._classes)
        info = tfds.core.DatasetInfo(
            builder=self,
            description=self._description,
            features=tfds.features.FeaturesDict(features),
        )
        # TFDS would look for the set in a bucket, as `catalog.without_bucket` says.
        info.initialize_from_bucket = lambda: None
        return info

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list:
        if self._metadata:
            metadata = json.dumps(msgspec.to_builtins(self._metadata))
            (self.data_path / prepared.METADATA).write_text(metadata)
        # TFDS's own way needs TensorFlow for sets above about 1 GB.
        return [record_writer.write_split(self, *split) for split in self._splits.items()]

    # TFDS asks for these two, which only its own way calls.
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
    """Return TFDS's own builder of `name`, which takes arrays instead of downloading files.

    The set it writes has the name, version, features and order of the one that TFDS would have
    written, so that `tfds.data_source(name)` reads it.

    Args:
      name: a TFDS set with features "image", "label" and perhaps "id".
      classes: names of the labels, None where TFDS names none.
      splits: uint8 (N, H, W, C) images and int (N,) labels of each split, in published order.
      data_dir: folder of prepared sets.
    """
    stock = tfds.builder_cls(name)
    base: type[tfds.core.DatasetBuilder] = catalog.without_bucket(stock)

    class Given(base, skip_registration=True):
        name = stock.name
        # Here, too, TFDS would look for a list of checksums.
        code_path = None

        def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
            features: Any = catalog.features_of(self)
            if classes is not None:
                features["label"].names = classes
            ids = "id" in features
            return {
                split: array_examples(pixels, labels, f"{split}_" if ids else "")
                for split, (pixels, labels) in splits.items()
            }

    # TFDS records the module in the set as its origin.
    Given.__module__ = stock.__module__
    make: Any = Given
    return make(data_dir=data_dir, file_format="array_record")


def write(builder: tfds.core.DatasetBuilder) -> Path:
    """Write the builder's set unless it is there already; return its folder.

    Raises UserError if the folder cannot be written, or if something else is in the set's place.
    """
    folder = Path(builder.data_dir)
    # In a log file, every step of TFDS's bars would be a line, and a terminal has a line of ours.
    tfds.disable_progress_bar()
    try:
        # TFDS announces a download, of which there is none.
        with (
            progress.phase(f"writing the set {builder.name}"),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            builder.download_and_prepare()
    # A fault of the input is not a fault of the folder, and has its message already.
    except UserError:
        raise
    except Exception as error:
        why = _system_error(error)
        if why is None:
            raise
        # If the set is there now, another process was faster, and its set is as good.
        if not prepared.is_prepared(folder):
            raise UserError(
                f"cannot write the set {builder.name} to {shown(folder, 300)}: {why}; choose "
                "another folder with data.dir or TFDS_DATA_DIR"
            ) from error
    if not prepared.is_prepared(folder):
        raise UserError(f"{shown(folder, 300)} exists but is no prepared TFDS set: move it away")
    return folder


def _system_error(error: BaseException | None) -> str | None:
    """Return the reason of the system behind an exception, None if the system is not behind it.

    TFDS wraps the system's exceptions in others, and the writer of records has words of its own.
    """
    while error is not None:
        if isinstance(error, OSError):
            return reason(error)
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            if os.strerror(number) in str(error):
                return os.strerror(number)
        # TFDS chains its own exceptions to the system's, the outermost first.
        error = error.__cause__ or error.__context__
    return None


def array_examples(pixels: np.ndarray, labels: np.ndarray | None, ids: str = "") -> Examples:
    """Yield examples from uint8 images (n, h, w, c) and int labels (n,) or None.

    ids: If not empty, each example gets a feature "id", which is `ids` and its number.
    """
    for i, image in enumerate(pixels):
        example: dict[str, Any] = {"image": decode.encode_png(image)}
        if labels is not None:
            example["label"] = int(labels[i])
        if ids:
            example["id"] = f"{ids}{i:05d}"
        yield i, example


def write_digits(data_dir: Path) -> Path:
    """Write the 1,797 handwritten digits of UCI, 8x8x1, labels 0 .. 9, unless they are written.

    The pixels' 17 gray levels v are stored as round(v * 255 / 16). Returns the set's folder. Raises
    UserError as `write` does.
    """
    folder = data_dir / "digits" / str(ImageSet.VERSION)
    if prepared.is_prepared(folder):
        return folder
    with np.load(_DIGITS, allow_pickle=False) as file:
        levels, labels = file["images"], file["labels"]
    pixels = np.rint(levels * (255 / 16)).astype(np.uint8)[..., None]
    return write(
        ImageSet(
            "digits",
            "Handwritten digits, 8x8 gray: the UCI set that scikit-learn carries.",
            pixels.shape[1:],
            10,
            {"train": array_examples(pixels, labels)},
            data_dir,
            Metadata(arrays_digest(pixels, labels)),
        )
    )


def counted(images: Mapping[str, int]) -> str:
    """Return a line with the number of images of each split."""
    return "images: " + ", ".join(f"{count:,} in {split}" for split, count in images.items())


# Sizes that configs for images of one's own have, in pixels.
_SIZES = (32, 64, 128, 256)


def sizes(sides: Sequence[int]) -> str:
    """Return a line about the widths or heights of images, whichever is less, in pixels.

    sides: of at least one image.
    """
    shorter = np.asarray(sides)
    below = [(int((shorter < size).sum()), size) for size in _SIZES]
    line = f"sizes: {shorter.min():,} pixels on the shorter side"
    if shorter.min() < shorter.max():
        line = (
            f"sizes: {shorter.min():,} to {shorter.max():,} pixels on the shorter side, median "
            f"{int(np.median(shorter)):,}"
        )
    few = [f"{count:,} below {size}" for count, size in below if count]
    return line + (f"; {', '.join(few)}" if few else "")


def arrays_digest(pixels: np.ndarray, labels: np.ndarray | None) -> str:
    """Return the SHA-256 of uint8 images (n, h, w, c) and int labels (n,), hexadecimal."""
    # The shape is part of it: other images can have the same bytes in a row.
    digest = hashlib.sha256(repr(pixels.shape).encode())
    for image in pixels:
        digest.update(image.tobytes())
    if labels is not None:
        # One byte order, so that every machine finds the same digest.
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()
