"""Read NumPy's files, .npy and .npz, that this process did not write: see `foreign`.

The content of a file and not its name decides its kind. Before anything is allocated, the size
that an array claims is compared with the bytes that are there. Only plain numbers and text are
read, and the archive's checksums are compared. Objects, which NumPy would unpickle, are refused.
"""

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from typing import NamedTuple, cast

import numpy as np

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign
from ddgan_jax.files.paths import is_bucket

# NumPy's letters: booleans, integers, floats, text.
KINDS = "?biufUS"
# Arrays in a file.
MOST_ENTRIES = 100_000
MOST_DIMENSIONS = 32
_MAGIC = b"\x93NUMPY"
# Version 3 only adds field names beyond Latin-1, and arrays with fields are refused anyway.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Form(NamedTuple):
    """The dtype and the shape of an array in a file."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


class ArrayFile(NamedTuple):
    """The arrays of a file: their forms, which are known, and methods that read them.

    forms: by the names of the arrays. An .npy file has a single one, under the name "".
    """

    path: str | os.PathLike
    forms: Mapping[str, Form]

    def load(self, name: str) -> np.ndarray:
        """Return one array. Raises UserError if it is not whole, or does not fit into memory."""
        with _opened(self.path) as file:
            if not self._is_archive:
                return _read_array(file, _size_of(file), self.path)
            with zipfile.ZipFile(file) as archive:
                return _read_entry(archive, f"{name}.npy", self.path)

    def load_all(self) -> dict[str, np.ndarray]:
        """Return all arrays by name. Raises UserError as `load`."""
        return {name: self.load(name) for name in self.forms}

    def mapped(self, name: str) -> np.ndarray:
        """Return an array that stays on the disk until its parts are read, if that is possible.

        It is for an .npy file outside of buckets; other arrays are read whole. Raises UserError as
        `load`.
        """
        if self._is_archive or is_bucket(self.path):
            return self.load(name)
        # This refuses all but regular files: `np.load` would wait for the writer of a pipe.
        with _opened(self.path):
            return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def __str__(self) -> str:
        named = (f"{shown(name) or 'one array'}: {form}" for name, form in self.forms.items())
        return shown("; ".join(named), 400)

    @property
    def _is_archive(self) -> bool:
        return "" not in self.forms


def open_arrays(path: str | os.PathLike) -> ArrayFile:
    """Return an .npy or .npz file of which only the headers have been read.

    Raises UserError for a file that is missing or damaged, that is something else, or whose arrays
    would take more than half of this machine's memory.
    """
    with _opened(path) as file:
        start = file.read(len(_MAGIC))
        file.seek(0)
        if start == _MAGIC:
            size = _size_of(file)
            return ArrayFile(path, {"": _read_form(file, size, path)})
        if not zipfile.is_zipfile(file):
            raise UserError(f"{shown(path, 300)} is no .npy or .npz file of arrays")
        with zipfile.ZipFile(file) as archive:
            return ArrayFile(path, dict(_forms(archive, path)))


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file by name. Raises UserError as `open_arrays`."""
    return open_arrays(path).load_all()


def text_of(arrays: Mapping[str, np.ndarray], name: str, source: str | os.PathLike) -> str:
    """Return the text that the array `name` holds. Raises UserError if there is no such text."""
    array = arrays.get(name)
    if array is None or array.shape != () or array.dtype.kind != "U":
        raise UserError(f"{shown(source, 300)} has no text {name!r}")
    with foreign.reading(source, "file of ours"):
        text = str(array)
        # NumPy's text may hold numbers that are no characters.
        text.encode()
    return text


def _forms(archive: zipfile.ZipFile, path: str | os.PathLike) -> Iterator[tuple[str, Form]]:
    # A small archive may claim, or unfold to, any number of bytes. Its own list is checked first.
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_ENTRIES or total > foreign.half_of_memory():
        raise UserError(
            f"{shown(path, 300)} unfolds to {len(entries):,} entries of {total:,} bytes, more "
            "than this machine can hold"
        )
    # Readers would disagree on which of the two counts.
    if len({entry.filename for entry in entries}) < len(entries):
        raise UserError(f"{shown(path, 300)} holds two arrays of one name")
    for entry in entries:
        # NumPy returns the raw bytes of an entry that is no array, without an error.
        if not entry.filename.endswith(".npy") or entry.filename == ".npy":
            raise UserError(f"{shown(path, 300)} holds {shown(entry.filename)}, which is no array")
        with _opened_entry(archive, entry) as stream:
            yield entry.filename.removesuffix(".npy"), _read_form(stream, entry.file_size, path)


def _read_entry(archive: zipfile.ZipFile, name: str, path: str | os.PathLike) -> np.ndarray:
    entry = archive.getinfo(name)
    with _opened_entry(archive, entry) as stream:
        array = _read_array(stream, entry.file_size, path)
        # zipfile compares the checksum when the end is reached.
        if stream.read(1):
            raise UserError(f"{shown(path, 300)} is damaged: {shown(name)} is longer than it says")
    return array


def _opened_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> BufferedIOBase:
    # It is a ZipExtFile, whatever the stubs say.
    return cast(BufferedIOBase, archive.open(entry))


def _read_form(stream: BufferedIOBase, size: int, path: str | os.PathLike) -> Form:
    """Read an array's header from a stream of `size` bytes; return the form that it states.

    Raises UserError unless plain values of that form fill the rest of the stream exactly.
    """
    return _read_header(stream, size, path)[0]


def _read_header(
    stream: BufferedIOBase, size: int, path: str | os.PathLike
) -> tuple[Form, bool, int]:
    """Return the form, whether the first index runs fastest, and the number of bytes of values."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise UserError(f"{shown(path, 300)} holds an array of the unknown version {version}")
    # NumPy parses the header as a literal of Python, and the bound keeps that short.
    shape, fortran_order, dtype = _HEADERS[version](stream, max_header_size=10_000)
    plain = dtype.kind in KINDS and not dtype.hasobject and dtype.names is None
    if not plain or dtype.itemsize == 0:
        raise UserError(
            f"{shown(path, 300)} holds an array of {shown(dtype)}, and only numbers and text are "
            "read"
        )
    if len(shape) > MOST_DIMENSIONS or any(length < 0 for length in shape):
        raise UserError(f"{shown(path, 300)} holds an array of the impossible shape {shown(shape)}")
    # Python's integers do not overflow, so a product of lengths cannot come out small.
    wanted, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if wanted != there:
        raise UserError(
            f"{shown(path, 300)} is damaged: an array of {shown(shape)} takes {shown(wanted)} "
            f"bytes, and there are {there:,}"
        )
    return Form(dtype, tuple(map(int, shape))), fortran_order, there


def _read_array(stream: BufferedIOBase, size: int, path: str | os.PathLike) -> np.ndarray:
    form, fortran_order, length = _read_header(stream, size, path)
    if length > foreign.half_of_memory():
        raise UserError(f"{shown(path, 300)} holds {length:,} bytes, more than fit into memory")
    content = np.empty(length, np.uint8)
    view, done = content.data, 0
    while done < length:
        # In parts, because a stream of an archive may deliver less than it is asked for.
        count = stream.readinto(view[done : done + 2**24])
        if not count:
            raise UserError(f"{shown(path, 300)} is damaged: it ends too early")
        done += count
    order = "F" if fortran_order else "C"
    return content.view(form.dtype).reshape(form.shape, order=order)


def _size_of(file: BufferedIOBase) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[BufferedIOBase]:
    what = "file of arrays"
    if is_bucket(path):
        with foreign.reading(path, what):
            yield io.BytesIO(foreign.read_bytes(path, what))
        return
    with foreign.open_regular(path, what) as file:
        yield file
