"""Turn what a pickle of torch.save describes into plain values: arrays, dicts, lists, numbers.

A description takes a few bytes, and the value that it describes may be huge, or hold itself. So
everything is counted before it is made.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np

from ddgan_jax.files.pickle_machine import Name, of_type

# Levels of containers.
DEEPEST = 50
# Values are counted as often as they occur: containers share their parts.
MOST_VALUES = 1_000_000
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
# The order of the bytes of a number, as NumPy writes it.
ByteOrder = Literal["<", ">"]


class Unread(NamedTuple):
    """Stands for something in a file that is neither a plain tensor nor a plain value.

    It is no error by itself, since it may stand where nobody looks, such as among the options of a
    script. text: Its description in messages.
    """

    text: str


@dataclasses.dataclass(eq=False)
class Storage:
    """The numbers of one or more tensors. key: Their name in the file. numel: Their count."""

    kind: str
    key: str
    numel: int


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor as its pickle describes it; nothing of it is checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


class Namespace(dict):
    """The fields of an argparse.Namespace."""


class Converter:
    """Converts each part of a value once, within a budget of bytes for all arrays together."""

    def __init__(
        self, content_of: Callable[[Storage], bytes], order: ByteOrder, budget: int
    ) -> None:
        self._content_of, self._left = content_of, budget
        self._order: ByteOrder = order
        # By identity, since values share their parts: what became of them, and how many they hold.
        self._done: dict[int, Any] = {}
        self._counts: dict[int, int] = {}
        self._open: set[int] = set()
        # The bytes of storages, each read once.
        self._contents: dict[str, bytes] = {}

    def convert(self, node: Any) -> Any:
        """Return the plain value. Raises ValueError for one that holds itself, or is too much."""
        if isinstance(node, Tensor):
            # A tensor that occurs twice in a value becomes one array.
            if id(node) not in self._done:
                self._done[id(node)] = self._array(node)
            return self._done[id(node)]
        if type(node) in (dict, list, tuple, Namespace):
            return self._container(node)
        if isinstance(node, Storage | Name):
            return Unread("something that belongs to a tensor")
        return node

    def _container(self, node: Any) -> Any:
        # A pickle can build a list that holds itself, and lists of lists that share their parts.
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

    def _array(self, tensor: Tensor) -> np.ndarray | Unread:
        storage = tensor.storage
        if isinstance(storage, Unread):
            return storage
        of_type(storage, Storage)
        dtype = dtype_of(storage.kind, self._order)
        content = self._content(storage)
        if len(content) != storage.numel * dtype.itemsize:
            raise ValueError("the bytes of a tensor are not all there")
        shape, strides = (_sizes(part) for part in (tensor.shape, tensor.strides))
        size = math.prod(shape)
        # The last element that the strides reach; a wrong one would read foreign memory.
        last = of_type(tensor.offset, int) + sum(
            (length - 1) * stride for length, stride in zip(shape, strides, strict=True)
        )
        if size and not 0 <= tensor.offset <= last < storage.numel:
            raise ValueError("a tensor reaches out of its bytes")
        # Counted as float32 at least, which bfloat16 becomes.
        self._left -= size * max(dtype.itemsize, 4)
        if self._left < 0:
            raise ValueError("its tensors unfold to more than it holds")
        # Strides of an empty tensor mean nothing and may point anywhere.
        if not size:
            return np.zeros(shape, dtype)
        flat = np.frombuffer(content, dtype)[tensor.offset :]
        steps = [stride * dtype.itemsize for stride in strides]
        array = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
        # The copy lets the file's bytes go, and gives the machine's own order of bytes.
        return np.array(
            array, np.float32 if storage.kind == "BFloat16" else dtype.newbyteorder("=")
        )

    def _content(self, storage: Storage) -> bytes:
        if storage.key not in self._contents:
            self._contents[storage.key] = self._content_of(storage)
        return self._contents[storage.key]


def dtype_of(kind: str, order: ByteOrder) -> np.dtype:
    """Return the type of the numbers of a storage, such as "Float".

    Raises ValueError for bfloat16 in the order of bytes that NumPy does not read.
    """
    if kind == "BFloat16":
        bfloat16 = np.dtype(ml_dtypes.bfloat16)
        # ml_dtypes has bfloat16 in the order of this machine alone.
        if order != "<":
            raise ValueError("it is of a machine with another order of bytes")
        return bfloat16
    return np.dtype(_DTYPES[kind]).newbyteorder(order)


def _sizes(value: Any) -> tuple[int, ...]:
    sizes = of_type(value, tuple)
    # NumPy 1 takes no more than 32 axes.
    if len(sizes) > 32 or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise ValueError("a tensor has an impossible shape")
    return sizes
