"""Read the published archives of CIFAR-10 and MNIST.

Nothing in an archive is executed, and no file is extracted. The packed files that the sets need are
read into memory, within bounds, and to their end, where the packing has its checksums.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ddgan_jax.data.prepare import pickles
from ddgan_jax.data.published import CIFAR_BINARY, COUNTS, PUBLISHED, file_names, sha256
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign, paths

# By the split's name: images, uint8 (N, H, W, C), and labels, int64 (N,).
Splits = Mapping[str, tuple[np.ndarray, np.ndarray]]

# Bytes of one file; a batch of CIFAR-10 has 31 million, MNIST's images 47 million.
LARGEST_MEMBER = 64 * 2**20
# Bytes of everything in an archive; CIFAR-10 has 187 million.
LARGEST_WHOLE = 512 * 2**20
MOST_MEMBERS = 1000
NUM_CLASSES = 10

_CIFAR_SHA256 = (PUBLISHED["cifar10"][0].sha256, CIFAR_BINARY.sha256)
_TRAIN = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
_CIFAR_FILES = {"train": _TRAIN, "test": ("test_batch",)}
_UNPACKERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


def read(
    name: str,
    archive: str | os.PathLike,
    *,
    allow_unpublished: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Splits:
    """Return the splits "train" and "test" of cifar10 or mnist in their published order.

    Args:
      name: a key of `published.PUBLISHED`.
      archive: cifar-10-python.tar.gz or cifar-10-binary.tar.gz; for MNIST the four idx files
        (.gz or not) in a folder, a zip or a tar file.
      allow_unpublished: take files that are not the published ones, which `report` is told. Their
        numbers of images may differ; shapes, labels and checksums of the packing are checked.

    Raises UserError if the archive is missing, damaged, something else, or not as published.
    """
    archive = Path(paths.user_path(archive, "archive"))
    what = f"{shown(archive, 300)} is not {name} as published ({file_names(name)}; checksum)"
    with foreign.reading(archive, f"archive of {name}"):
        contents = [] if name == "cifar10" else _mnist_files(archive)
        if name == "cifar10":
            published = not archive.is_dir() and sha256(archive) in _CIFAR_SHA256
        else:
            published = all(
                hashlib.sha256(content).hexdigest() == remote.content
                for content, remote in zip(contents, PUBLISHED[name], strict=True)
            )
        if not published and not allow_unpublished:
            raise UserError(f"{what}; to use it all the same, give `allow_unpublished`")
        splits = _read_cifar10(archive) if name == "cifar10" else _read_mnist(contents)
        _check(name, published, splits)
    if not published:
        report(f"{what}; used all the same, as `allow_unpublished` says")
    return splits


def _check(name: str, published: bool, splits: Splits) -> None:
    """Raise ValueError for labels out of range, and for published splits of other lengths."""
    for split, (pixels, labels) in splits.items():
        if not len(pixels) or len(pixels) != len(labels):
            raise ValueError(f"{split} has {len(pixels):,} images and {len(labels):,} labels")
        if labels.min() < 0 or labels.max() >= NUM_CLASSES:
            raise ValueError(f"labels of {split} are not all in 0 to {NUM_CLASSES - 1}")
        if published and len(pixels) != COUNTS[name][split]:
            raise ValueError(f"{split} has {len(pixels):,} images, not {COUNTS[name][split]:,}")


# ------------------------------------------------------------------------------------ unpacking


def _unpack(archive: Path, names: set[str]) -> dict[str, bytes]:
    """Return those of the named files that a folder, zip or tar holds, at any depth.

    A member may be packed once more, as .gz. Raises UserError if two have one name.
    """
    found: dict[str, bytes] = {}
    for path, read_member in _members(archive):
        name = path.rsplit("/", 1)[-1]
        plain = name.removesuffix(".gz")
        if plain not in names:
            continue
        # Which of the two is meant, nobody can know.
        if plain in found:
            raise UserError(f"{shown(archive, 300)} holds {plain} twice")
        content = read_member()
        if name.endswith(".gz"):
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = _read_at_most(packed, LARGEST_MEMBER)
        found[plain] = content
    return found


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield path and reader of each regular file, one after another, as a tar must be read."""
    if archive.is_dir():
        for path in sorted(archive.iterdir()):
            if path.is_file():
                yield path.name, lambda path=path: foreign.read_bytes(path, most=LARGEST_MEMBER)
        return
    with foreign.open_regular(archive, "archive") as file:
        if zipfile.is_zipfile(file):
            yield from _zip_members(file)
        else:
            yield from _tar_members(file)


def _zip_members(file: BinaryIO) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with zipfile.ZipFile(file) as pack:
        entries = pack.infolist()
        if len(entries) > MOST_MEMBERS:
            raise ValueError(f"it holds {len(entries):,} files")

        def read_member(entry: zipfile.ZipInfo) -> bytes:
            with pack.open(entry) as stream:
                return _read_at_most(stream, LARGEST_MEMBER)

        yield from ((e.filename, lambda e=e: read_member(e)) for e in entries if not e.is_dir())


def _tar_members(file: BinaryIO) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Read a tar as a stream: a member's place never leads back, so that reading ends."""
    with _unpacked(file) as stream:
        # A small compressed file may unfold to any size, and a tar must be read to its end.
        bounded = _Bounded(stream, LARGEST_WHOLE)
        # A tar that is read as a stream is only ever asked for its next bytes.
        with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r|") as pack:
            for count, member in enumerate(pack):
                if count >= MOST_MEMBERS:
                    raise ValueError(f"it holds more than {MOST_MEMBERS:,} files")
                if member.isreg() and not member.issparse():
                    data = pack.extractfile(member)
                    yield member.name, lambda data=data: _read_at_most(data, LARGEST_MEMBER)
        # The end is read too, since the checksum of the whole is compared there.
        while bounded.read(2**20):
            pass


@contextlib.contextmanager
def _unpacked(file: BinaryIO) -> Iterator[BinaryIO]:
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    opener = next((f for magic, f in _UNPACKERS.items() if start.startswith(magic)), None)
    if opener is None:
        yield file
        return
    with opener(file) as stream:
        yield stream


class _Bounded:
    """A stream that refuses to unfold to more than so many bytes."""

    def __init__(self, stream: BinaryIO, most: int):
        self._stream, self._left = stream, most

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises ValueError beyond the bound."""
        content = self._stream.read(min(size, 2**20))
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it unfolds to far more than the set has")
        return content


def _read_at_most(stream: Any, most: int) -> bytes:
    content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"a file in it has more than {most:,} bytes")
    # Reading beyond the end makes the unpacker compare its checksum.
    if stream.read(1):
        raise ValueError("a file in it is longer than it says")
    return content


# ------------------------------------------------------------------------------------- CIFAR-10


def _read_cifar10(archive: Path) -> Splits:
    # The Python and the binary form of the set have the same batches; names differ in ".bin".
    names = [name for group in _CIFAR_FILES.values() for name in group]
    files = _unpack(archive, {*names, *(f"{name}.bin" for name in names)})
    if missing := [n for n in names if n not in files and f"{n}.bin" not in files]:
        raise ValueError(f"no {missing[0]} in it")
    splits = {}
    for split, group in _CIFAR_FILES.items():
        parts = [
            _cifar_pickle(files[name]) if name in files else _cifar_binary(files[f"{name}.bin"])
            for name in group
        ]
        pixels, labels = zip(*parts, strict=True)
        splits[split] = np.concatenate(pixels), np.concatenate(labels)
    return splits


def _cifar_pickle(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    batch = pickles.load(content)
    pixels, labels = batch.get("data"), batch.get("labels")
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        # Numbers that int64 does not hold become -1, which is refused with the other bad labels.
        labels = np.array([label if 0 <= label < NUM_CLASSES else -1 for label in labels], np.int64)
    if not (isinstance(pixels, np.ndarray) and isinstance(labels, np.ndarray)):
        raise ValueError("a batch does not hold an array `data` and a list `labels` of integers")
    return _cifar_examples(pixels, labels)


def _cifar_binary(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    # A byte with the label, then the pixels.
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return _cifar_examples(records[:, 1:], records[:, 0])


def _cifar_examples(pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 32, 32, 3) and int64 (N,) from uint8 (N, 3072), channels first."""
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,) or labels.shape != pixels.shape[:1]:
        raise ValueError("a batch does not hold uint8 pixels (N, 3072) and as many labels")
    # The published pixels are channels-first: all of red, then green, then blue.
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


# ---------------------------------------------------------------------------------------- MNIST


def _mnist_files(archive: Path) -> list[bytes]:
    names = [remote.name.removesuffix(".gz") for remote in PUBLISHED["mnist"]]
    files = _unpack(archive, set(names))
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"no {missing[0]} in it")
    return [files[name] for name in names]


def _read_mnist(contents: list[bytes]) -> Splits:
    train_images, train_labels, test_images, test_labels = map(_idx, contents)
    splits = {"train": (train_images, train_labels), "test": (test_images, test_labels)}
    for pixels, labels in splits.values():
        if pixels.shape != (len(pixels), 28, 28) or labels.shape != (len(pixels),):
            raise ValueError(f"images {pixels.shape} and labels {labels.shape} are not MNIST's")
    return {split: (x[..., None], y.astype(np.int64)) for split, (x, y) in splits.items()}


def _idx(content: bytes) -> np.ndarray:
    """Return an idx file of unsigned bytes: 0, 0, 8, rank, then the sizes as big-endian uint32."""
    if content[:3] != b"\0\0\x08" or not 1 <= content[3] <= 3:
        raise ValueError("a file is no idx file of unsigned bytes")
    # The fourth byte is the number of axes.
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, offset=4).astype(np.int64).tolist()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
