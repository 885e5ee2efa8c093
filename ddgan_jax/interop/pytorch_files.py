"""Reading files of torch.save without running what may be hidden in them, and without PyTorch.

Such a file is a pickle, a program that builds objects, beside the bytes of its tensors. The program
goes through `pickle_machine`, to which tensors and argparse.Namespace, in which training scripts
keep their options, are known by name; any other name is refused before anything is built. Both
forms are read: the zip archive of today, and the sequence of pickles of PyTorch before 1.6.
"""

import dataclasses
import io
import math
import os
import re
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign
from ddgan_jax.files.pickle_machine import Machine, Name, of_type, paired

WHAT = "file of torch.save"
MOST_RECORDS = 200_000  # of an archive: one for each tensor
MOST_COPIES = 4  # so many times the file's bytes may its tensors take: they share memory there
DEEPEST = 50  # levels of containers
MOST_VALUES = 1_000_000  # counted as often as they occur: containers share their parts
_MAGIC = 0x1950A86A20F9469CFC6C  # at the start of the older form
_STORED = re.compile(r"torch\.(Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage")
_DTYPES = {
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}
# What belongs to tensors of PyTorch and is never called; a tensor of these kinds is an `Unread`.
_OF_TENSORS = re.compile(
    r"torch\.(\w*Storage|\w*Tensor|Size|device|(u?int|b?float|complex|qu?int|bool|per_)\w*)|"
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|"
    r"torch\.storage\.\w+Storage|torch\.serialization\._get_layout|torch\.nn\.parameter\.Parameter"
)
_CONTAINERS = (
    "collections.OrderedDict",
    "argparse.Namespace",
    "builtins.set",
    "__builtin__.set",
    "_codecs.encode",
)


class Unread(NamedTuple):
    """Something in a file that is neither a plain tensor nor a plain value. text: what, for people.

    It may stand in a place where nobody looks, such as among the options of a script.
    """

    text: str


class _CodeError(UserError):
    """A pickle names a function or a class that no plain file needs; the message is the name."""


@dataclasses.dataclass(eq=False)
class _Storage:
    """Numbers of one type in a row. key: their name in the file; numel: as the pickle says."""

    kind: str
    key: str
    numel: int


@dataclasses.dataclass(eq=False)
class _Tensor:
    """A tensor as its pickle describes it; nothing of it is checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


class _Namespace(dict):
    """The fields of an argparse.Namespace."""


def read(path: str | os.PathLike) -> Any:
    """Return the content of a file of torch.save; see `load`, also for errors."""
    return load(foreign.read_bytes(path, WHAT), path)


def load(content: bytes, path: str | os.PathLike) -> Any:
    """Return what torch.save wrote as these bytes: tensors as numpy arrays, a Namespace as a dict.

    Arrays own their memory, also those that shared it in the file, and take at most MOST_COPIES
    times the file's size; bfloat16 becomes float32. Whatever else a file holds is `Unread`. path:
    for the message of the UserError that is raised for bytes that are damaged, and for a file that
    names code.
    """
    try:
        return _load(content, path)
    except _CodeError as code:
        raise UserError(
            f"{shown(path, 300)} is refused: it holds code, {shown(code)}, and was not run"
        ) from code


def _load(content: bytes, path: str | os.PathLike) -> Any:
    with foreign.reading(path, WHAT):
        if content.startswith(b"PK"):
            value, storage, order = _from_archive(content)
        else:
            value, storage, order = _from_pickles(content)
        return _Converter(storage, order, MOST_COPIES * len(content)).convert(value)


# ------------------------------------------------------------------------------ the two forms


def _from_archive(content: bytes) -> tuple[Any, Callable[[_Storage], bytes], str]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = archive.infolist()
    if len(entries) > MOST_RECORDS or sum(entry.file_size for entry in entries) > len(content):
        raise ValueError("it unfolds to more than it holds")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed, which torch.save never does")
    names = {entry.filename for entry in entries}
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise ValueError("it has no data.pkl")
    order = ">" if _optional(archive, names, f"{folders[0]}byteorder") == b"big" else "<"
    value = _TorchMachine().run(io.BytesIO(archive.read(f"{folders[0]}data.pkl")))
    return value, lambda storage: archive.read(f"{folders[0]}data/{storage.key}"), order


def _optional(archive: zipfile.ZipFile, names: set[str], name: str) -> bytes:
    return archive.read(name) if name in names else b""


def _from_pickles(content: bytes) -> tuple[Any, Callable[[_Storage], bytes], str]:
    file, machine = io.BytesIO(content), _TorchMachine()
    if machine.run(file) != _MAGIC:
        raise ValueError("it does not begin as one")
    machine.run(file)  # the version of the form, of which there is one
    system = machine.run(file)
    order = "<" if not isinstance(system, dict) or system.get("little_endian", True) else ">"
    value, keys = machine.run(file), machine.run(file)
    there = {storage.key: storage for storage in machine.storages}
    contents = {}
    for key in of_type(keys, list):
        storage = there.get(of_type(key, str))
        if storage is None:
            raise ValueError("it has numbers of a type that is not read")
        numel = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        length = numel * _dtype(storage.kind, order).itemsize
        contents[key] = file.read(length)
        if numel != storage.numel or len(contents[key]) != length:
            raise ValueError("it ends too early")
    return value, lambda storage: contents[storage.key], order


class _TorchMachine(Machine):
    """The machine that knows tensors and namespaces; `storages`: all that were named so far."""

    most_instructions = 5_000_000  # a checkpoint with optimizers has about 100,000

    def __init__(self) -> None:
        super().__init__()
        self.storages: list[_Storage] = []

    def named(self, name: str) -> Name:
        if name not in _CONTAINERS and not _OF_TENSORS.fullmatch(name):
            raise _CodeError(name)
        return Name(name)

    def reduced(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        name = of_type(function, Name).text
        if name == "collections.OrderedDict":
            pairs = of_type(arguments[0], list) if arguments else []
            if any(type(pair) not in (tuple, list) or len(pair) != 2 for pair in pairs):
                raise ValueError("a dict is not made of pairs")
            return paired([part for pair in pairs for part in pair])
        if name == "argparse.Namespace":
            return _Namespace()
        if name == "torch.Size":
            return of_type(arguments[0], tuple)
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return _Tensor(*arguments[:4])
        if name.startswith("torch._utils._rebuild_parameter"):
            return arguments[0]
        return Unread(f"no plain tensor ({name})" if "_rebuild_" in name else f"a {name}")

    def build(self, target: Any, state: Any) -> None:
        # State dicts carry the versions of their modules; tensors may carry attributes.
        if isinstance(target, _Namespace):
            target.update(of_type(state, dict))

    def persistent(self, identity: Any) -> Any:
        word, kind, key, _, numel, *view = of_type(identity, tuple)
        if word != "storage" or (view and view[0] is not None):
            raise ValueError("it shares memory in a way that is not known")
        name = _STORED.fullmatch(of_type(kind, Name).text)
        if not name:
            return Unread(f"a tensor of {kind.text}")
        storage = _Storage(name[1], of_type(key, str), of_type(numel, int))
        self.storages.append(storage)
        return storage


# ----------------------------------------------------------------------------- to plain values


class _Converter:
    """Turns what the machine built into plain values, each part once, within a budget of bytes."""

    def __init__(self, content_of: Callable[[_Storage], bytes], order: str, budget: int) -> None:
        self._content_of, self._order, self._left = content_of, order, budget
        # By identity, since values share their parts: what became of them, and how many they hold.
        self._done: dict[int, Any] = {}
        self._counts: dict[int, int] = {}
        self._open: set[int] = set()
        self._contents: dict[str, bytes] = {}  # of storages, each read once

    def convert(self, node: Any) -> Any:
        """Return the plain value. Raises ValueError for one that holds itself, or is too much."""
        if isinstance(node, _Tensor):
            if id(node) not in self._done:
                self._done[id(node)] = self._array(node)
            return self._done[id(node)]
        if type(node) in (dict, list, tuple, _Namespace):
            return self._container(node)
        if isinstance(node, _Storage | Name):
            return Unread("something that belongs to a tensor")
        return node

    def _container(self, node: Any) -> Any:
        if id(node) in self._open:
            raise ValueError("something in it holds itself")
        if id(node) in self._done:
            return self._done[id(node)]
        if len(self._open) >= DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        self._open.add(id(node))
        parts = node.values() if isinstance(node, dict) else node
        values = [self.convert(part) for part in parts]
        self._open.remove(id(node))
        self._counts[id(node)] = 1 + sum(self._counts.get(id(part), 1) for part in parts)
        if self._counts[id(node)] > MOST_VALUES:
            raise ValueError(f"it unfolds to more than {MOST_VALUES:,} values")
        plain = dict(zip(node, values, strict=True)) if isinstance(node, dict) else values
        self._done[id(node)] = tuple(values) if type(node) is tuple else plain
        return self._done[id(node)]

    def _array(self, tensor: _Tensor) -> np.ndarray | Unread:
        storage = tensor.storage
        if isinstance(storage, Unread):
            return storage
        of_type(storage, _Storage)
        dtype = _dtype(storage.kind, self._order)
        content = self._content(storage)
        if len(content) != storage.numel * dtype.itemsize:
            raise ValueError("the bytes of a tensor are not all there")
        shape, strides = (_sizes(part) for part in (tensor.shape, tensor.strides))
        size = math.prod(shape)
        last = of_type(tensor.offset, int) + sum(
            (length - 1) * stride for length, stride in zip(shape, strides, strict=True)
        )
        if size and not 0 <= tensor.offset <= last < storage.numel:
            raise ValueError("a tensor reaches out of its bytes")
        self._left -= size * max(dtype.itemsize, 4)
        if self._left < 0:
            raise ValueError("its tensors unfold to more than it holds")
        if not size:
            return np.zeros(shape, dtype)
        flat = np.frombuffer(content, dtype)[tensor.offset :]
        steps = [stride * dtype.itemsize for stride in strides]
        array = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
        return np.array(
            array, np.float32 if storage.kind == "BFloat16" else dtype.newbyteorder("=")
        )

    def _content(self, storage: _Storage) -> bytes:
        if storage.key not in self._contents:
            self._contents[storage.key] = self._content_of(storage)
        return self._contents[storage.key]


def _dtype(kind: str, order: str) -> np.dtype:
    if kind == "BFloat16":
        bfloat16 = np.dtype(ml_dtypes.bfloat16)
        if order != "<":
            raise ValueError("it is of a machine with another order of bytes")
        return bfloat16
    return np.dtype(_DTYPES[kind]).newbyteorder(order)


def _sizes(value: Any) -> tuple[int, ...]:
    sizes = of_type(value, tuple)
    if len(sizes) > 32 or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise ValueError("a tensor has an impossible shape")
    return sizes
