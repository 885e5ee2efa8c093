"""Reading the published archives of CIFAR-10 and MNIST, and fetching them."""

import gzip
import hashlib
import http.client
import io
import os
import pickle
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ddgan_jax.errors import UserError

Splits = Mapping[str, tuple[np.ndarray, np.ndarray]]  # split: uint8 (N, H, W, C), int (N,)


class Remote(NamedTuple):
    """A published file. digest: hash algorithm and hexadecimal digest."""

    folder: str
    name: str
    digest: tuple[str, str]


_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"

# The digests of the MNIST files are those that TFDS checks.
PUBLISHED: Mapping[str, tuple[Remote, ...]] = {
    "cifar10": (
        Remote(_CIFAR, "cifar-10-python.tar.gz", ("md5", "c58f30108f718f92721af3b95e74349a")),
    ),
    "mnist": (
        Remote(
            _MNIST,
            "train-images-idx3-ubyte.gz",
            ("sha256", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ),
        Remote(
            _MNIST,
            "train-labels-idx1-ubyte.gz",
            ("sha256", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ),
        Remote(
            _MNIST,
            "t10k-images-idx3-ubyte.gz",
            ("sha256", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ),
        Remote(
            _MNIST,
            "t10k-labels-idx1-ubyte.gz",
            ("sha256", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
    ),
}

# Where TFDS takes names of the labels from the archive.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
}

_DAMAGED = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def file_names(name: str) -> str:
    """The names of a set's published files, for messages."""
    return ", ".join(remote.name for remote in PUBLISHED[name])


def fetch(name: str, folder: Path) -> Path:
    """Downloads the published files of a set into `folder`, where they stay.

    A file that is there already is not fetched again, only checked.

    Returns:
      What `read` takes: the file, or the folder where there are several.

    Raises:
      UserError: no connection, or a file whose checksum is not the published one.
    """
    remotes = PUBLISHED[name]
    for remote in remotes:
        file = folder / remote.name
        if not file.exists():
            _download(remote, file)
        elif _digest(file, remote.digest[0]) != remote.digest[1]:
            raise UserError(f"{file} is not the published file (checksum): move it away")
    return folder / remotes[0].name if len(remotes) == 1 else folder


def _download(remote: Remote, file: Path) -> None:
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    url = remote.folder + remote.name
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as response, part.open("wb") as out:
            size = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
                while block := response.read(2**20):
                    out.write(block)
                    bar.update(len(block))
        if _digest(part, remote.digest[0]) != remote.digest[1]:
            raise UserError(
                f"{url} gave a file that is not the published one (checksum): try again"
            )
        part.replace(file)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot fetch {url} to {file.parent}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _digest(file: Path, algorithm: str) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def read(name: str, archive: Path) -> Splits:
    """The splits "train" and "test" of cifar10 or mnist in their published order.

    Args:
      name: a key of `PUBLISHED`.
      archive: cifar-10-python.tar.gz or cifar-10-binary.tar.gz; for MNIST the four idx files
        (.gz or not) in a folder, a zip or a tar file.

    Raises:
      UserError: missing, damaged, or something else. Nothing in an archive is executed, no file
        is extracted.
    """
    readers = {"cifar10": _read_cifar10, "mnist": _read_mnist}
    try:
        return readers[name](archive)
    except _DAMAGED as error:
        raise UserError(
            f"{archive} is not {name} as published ({file_names(name)}): {error}"
        ) from error


def _unpack(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Those of the named files that a folder, zip or tar holds, at any depth; .gz is unpacked."""
    found = {}
    for path, read_bytes in _files(archive):
        name = Path(path).name
        if name.removesuffix(".gz") in names:
            content = read_bytes()
            found[name.removesuffix(".gz")] = (
                gzip.decompress(content) if name.endswith(".gz") else content
            )
    return found


def _files(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and reader of each file, one after another, as a packed tar must be read."""
    if archive.is_dir():
        yield from ((str(file), file.read_bytes) for file in archive.iterdir() if file.is_file())
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack:
            yield from ((name, partial(pack.read, name)) for name in pack.namelist())
    else:
        with tarfile.open(archive, "r|*") as pack:
            yield from ((m.name, pack.extractfile(m).read) for m in pack if m.isfile())


def _read_cifar10(archive: Path) -> Splits:
    batches = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
    splits = {"train": batches, "test": ("test_batch",)}
    names = [name for group in splits.values() for name in group]
    files = _unpack(archive, [*names, *(f"{name}.bin" for name in names)])
    if missing := [n for n in names if n not in files and f"{n}.bin" not in files]:
        raise KeyError(f"no {missing[0]} in it")
    parts = {
        name: _cifar_pickle(files[name]) if name in files else _cifar_binary(files[f"{name}.bin"])
        for name in names
    }
    return {
        split: tuple(
            np.concatenate(arrays) for arrays in zip(*(parts[n] for n in group), strict=True)
        )
        for split, group in splits.items()
    }


def _cifar_pickle(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    return _cifar_examples(np.asarray(batch[b"data"]), np.asarray(batch[b"labels"]))


def _cifar_binary(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return _cifar_examples(records[:, 1:], records[:, 0])


def _cifar_examples(pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 3072) with channels first and labels -> (N, 32, 32, 3) and int64 (N,)."""
    if pixels.dtype != np.uint8 or labels.shape != (len(pixels),) or not np.all(labels < 10):
        raise ValueError("a batch does not hold uint8 pixels with labels 0 to 9")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds dicts, lists, strings, numbers and NumPy arrays, and refuses everything else.

    A pickle names the functions that rebuild its content, and may name any function at all; these
    four are what arrays need.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The one place where a pickle reaches code."""
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it would run {module}.{name}, which no image needs")
        return allowed[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 pickles bytes for Python 2. Other encodings would be looked up as modules."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding}")
    return text.encode("latin1")


def _read_mnist(archive: Path) -> Splits:
    names = [remote.name.removesuffix(".gz") for remote in PUBLISHED["mnist"]]
    files = _unpack(archive, names)
    if missing := [name for name in names if name not in files]:
        raise KeyError(f"no {missing[0]} in it")
    train_images, train_labels, test_images, test_labels = (_idx(files[name]) for name in names)
    splits = {"train": (train_images, train_labels), "test": (test_images, test_labels)}
    for pixels, labels in splits.values():
        if pixels.shape != (len(labels), 28, 28) or labels.ndim != 1 or labels.max() > 9:
            raise ValueError(f"images {pixels.shape} and labels {labels.shape} are not MNIST's")
    return {split: (x[..., None], y.astype(np.int64)) for split, (x, y) in splits.items()}


def _idx(content: bytes) -> np.ndarray:
    """An idx file of unsigned bytes: 0, 0, 8, rank, then the sizes as big-endian uint32."""
    if content[:3] != b"\0\0\x08":
        raise ValueError("not an idx file of unsigned bytes")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
