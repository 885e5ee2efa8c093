"""Read files of torch.save without running what may be hidden in them, and without PyTorch.

Such a file is a pickle, a program that builds objects, beside the bytes of its tensors. The program
goes through `pickle_machine`, to which tensors and argparse.Namespace, in which training scripts
keep their options, are known by name; any other name is refused before anything is built. Both
forms are read: the zip archive of today, and the sequence of pickles of PyTorch before 1.6.
"""

import io
import os
import re
import zipfile
from collections.abc import Callable
from typing import Any

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign
from ddgan_jax.files.pickle_machine import Machine, Name, of_type, paired
from ddgan_jax.interop.pytorch_values import (
    ByteOrder,
    Converter,
    Namespace,
    Storage,
    Tensor,
    Unread,
    dtype_of,
)

WHAT = "file of torch.save"
# Records of an archive, which has one for each tensor.
MOST_RECORDS = 200_000
# Tensors of a file may share memory and are copied here. They may take this many times the file.
MOST_COPIES = 4
# The number at the start of the older form.
_MAGIC = 0x1950A86A20F9469CFC6C
_STORED = re.compile(r"torch\.(Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage")
# Names that belong to tensors of PyTorch and are never called. A tensor of these kinds is `Unread`.
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


class _CodeError(UserError):
    """Raised for a pickle that names code which no plain file needs; the message is that name."""


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
    # Apart from damage: a file that names code may be an attack, and its message must say so.
    try:
        return _load(content, path)
    except _CodeError as code:
        raise UserError(
            f"{shown(path, 300)} is refused: it holds code, {shown(code)}, and was not run"
        ) from code


def _load(content: bytes, path: str | os.PathLike) -> Any:
    with foreign.reading(path, WHAT):
        # The first two bytes of every zip archive.
        if content.startswith(b"PK"):
            value, storage, order = _from_archive(content)
        else:
            value, storage, order = _from_pickles(content)
        return Converter(storage, order, MOST_COPIES * len(content)).convert(value)


# ------------------------------------------------------------------------------ the two forms


def _from_archive(content: bytes) -> tuple[Any, Callable[[Storage], bytes], ByteOrder]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = archive.infolist()
    # A zip bomb unfolds to more than the file has; torch.save stores and never compresses.
    if len(entries) > MOST_RECORDS or sum(entry.file_size for entry in entries) > len(content):
        raise ValueError("it unfolds to more than it holds")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed, which torch.save never does")
    names = {entry.filename for entry in entries}
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    # The archive's own name is the folder in it, which renaming the file does not change.
    if len(folders) != 1:
        raise ValueError("it has no data.pkl")
    # Archives of older versions have no record of the order of bytes, and are little-endian.
    order = ">" if _optional(archive, names, f"{folders[0]}byteorder") == b"big" else "<"
    value = _TorchMachine().run(io.BytesIO(archive.read(f"{folders[0]}data.pkl")))
    return value, lambda storage: archive.read(f"{folders[0]}data/{storage.key}"), order


def _optional(archive: zipfile.ZipFile, names: set[str], name: str) -> bytes:
    return archive.read(name) if name in names else b""


def _from_pickles(content: bytes) -> tuple[Any, Callable[[Storage], bytes], ByteOrder]:
    file, machine = io.BytesIO(content), _TorchMachine()
    if machine.run(file) != _MAGIC:
        raise ValueError("it does not begin as one")
    # The version of the form, of which there is one.
    machine.run(file)
    system = machine.run(file)
    order = "<" if not isinstance(system, dict) or system.get("little_endian", True) else ">"
    value, keys = machine.run(file), machine.run(file)
    # The bytes of the storages follow all pickles, each after its count of numbers, in the order of
    # `keys`.
    there = {storage.key: storage for storage in machine.storages}
    contents = {}
    for key in of_type(keys, list):
        storage = there.get(of_type(key, str))
        if storage is None:
            raise ValueError("it has numbers of a type that is not read")
        numel = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        length = numel * dtype_of(storage.kind, order).itemsize
        contents[key] = file.read(length)
        if numel != storage.numel or len(contents[key]) != length:
            raise ValueError("it ends too early")
    return value, lambda storage: contents[storage.key], order


class _TorchMachine(Machine):
    """A machine that knows tensors and namespaces by name. storages: All that it met so far."""

    # A checkpoint with optimizers has about 100,000.
    most_instructions = 5_000_000

    def __init__(self) -> None:
        super().__init__()
        self.storages: list[Storage] = []

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
        # Scripts keep their options in the checkpoint, as a namespace.
        if name == "argparse.Namespace":
            return Namespace()
        if name == "torch.Size":
            return of_type(arguments[0], tuple)
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            # The arguments behind the strides say whether gradients are wanted, and which hooks
            # there are.
            return Tensor(*arguments[:4])
        # A parameter is its tensor, with requires_grad and hooks beside it.
        if name.startswith("torch._utils._rebuild_parameter"):
            return arguments[0]
        # Sparse and quantised tensors are no error until something asks for their numbers.
        return Unread(f"no plain tensor ({name})" if "_rebuild_" in name else f"a {name}")

    def build(self, target: Any, state: Any) -> None:
        # State dicts carry the versions of their modules; tensors may carry attributes.
        if isinstance(target, Namespace):
            target.update(of_type(state, dict))

    def persistent(self, identity: Any) -> Any:
        word, kind, key, _, numel, *view = of_type(identity, tuple)
        # A view of another storage, as very old files have it, could reach out of its bytes.
        if word != "storage" or (view and view[0] is not None):
            raise ValueError("it shares memory in a way that is not known")
        name = _STORED.fullmatch(of_type(kind, Name).text)
        if not name:
            return Unread(f"a tensor of {kind.text}")
        storage = Storage(name[1], of_type(key, str), of_type(numel, int))
        self.storages.append(storage)
        return storage
