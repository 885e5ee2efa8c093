"""Read the pickles of CIFAR-10 without unpickling them: see `pickle_machine`.

Beside plain values this reader knows the forms in which NumPy writes an array. The names in these
forms are only compared; nothing is imported and nothing is called.
"""

import dataclasses
import io
import math
from typing import Any

import numpy as np

from ddgan_jax.files.pickle_machine import Machine, Name, of_type

# A batch of CIFAR-10 has about 50,000.
MOST_INSTRUCTIONS = 1_000_000
_DTYPES = {("u1", "|"): np.dtype("u1"), ("i8", "<"): np.dtype("<i8")}

_EMPTY_ARRAY, _ARRAY, _BUFFER, _DTYPE, _ENCODE = "empty array", "array", "buffer", "dtype", "encode"
# The names that NumPy 1 and 2 write for the same thing.
_NAMES = {
    "numpy.core.multiarray._reconstruct": _EMPTY_ARRAY,
    "numpy._core.multiarray._reconstruct": _EMPTY_ARRAY,
    "numpy.core.numeric._frombuffer": _BUFFER,
    "numpy._core.numeric._frombuffer": _BUFFER,
    "numpy.ndarray": _ARRAY,
    "numpy.dtype": _DTYPE,
    "_codecs.encode": _ENCODE,
}


@dataclasses.dataclass(eq=False)
class _DType:
    """A dtype by its code, such as "u1". dtype: known once the pickle has given its state."""

    code: str
    dtype: np.dtype | None = None


@dataclasses.dataclass(eq=False)
class _Array:
    """An array, which has no content until the pickle has given its state."""

    content: np.ndarray | None = None


def load(pickled: bytes) -> dict[str, Any]:
    """Return the top-level dict of a pickle of any protocol, keyed by text.

    Values are as they were pickled; arrays are read-only, uint8 or int64. Raises ValueError, or
    another exception where the pickle breaks the machine's rules, for everything else.
    """
    file = io.BytesIO(pickled)
    value = _Machine().run(file)
    # The machine stops at the end of the first program, and a file may hold another one.
    if file.read(1):
        raise ValueError("something follows after its end")
    if type(value) is not dict:
        raise ValueError("it does not hold a dict")
    # The published pickles were written by Python 2, whose text is bytes here.
    return {_text(key): _finished(item) for key, item in value.items()}


class _Machine(Machine):
    """A machine that knows NumPy's arrays by name."""

    most_instructions = MOST_INSTRUCTIONS

    def named(self, name: str) -> Name:
        if name not in _NAMES:
            raise ValueError(f"it would run {name}, which no image needs")
        return Name(name)

    def reduced(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        return _reduced(function, arguments)

    def build(self, target: Any, state: Any) -> None:
        _build(target, state)


def _reduced(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what a call by that name stands for: an array, a dtype or bytes; nothing is called."""
    role = _role(function)
    # In turn an array in protocols below 5, one in protocol 5, a dtype, and bytes in protocol 2.
    if role == _EMPTY_ARRAY and len(arguments) == 3:
        if _role(arguments[0]) == _ARRAY:
            return _Array()
    elif role == _BUFFER and len(arguments) == 4:
        content, dtype, shape, order = arguments
        return _Array(_array(shape, dtype, order == "F", content))
    elif role == _DTYPE and arguments and type(arguments[0]) in (str, bytes):
        return _DType(_text(arguments[0]))
    elif role == _ENCODE and len(arguments) == 2 and type(arguments[0]) is str:
        # Python 3 writes bytes into protocol 2 as text that is to be encoded.
        if arguments[1] != "latin1":
            raise ValueError(f"text is encoded as {_text(arguments[1])}")
        return arguments[0].encode("latin1")
    raise ValueError("it would call something in a way that no image needs")


def _role(value: Any) -> str:
    return _NAMES[value.text] if type(value) is Name else ""


def _build(target: Any, state: Any) -> None:
    """Give a dtype or an array its state, once."""
    if type(state) is not tuple:
        raise ValueError("a state is no tuple")
    if type(target) is _DType and target.dtype is None and len(state) >= 5:
        # Fields of records and sub-arrays, which could hold objects.
        if any(item is not None for item in state[2:5]):
            raise ValueError("an array holds records")
        target.dtype = _DTYPES.get((target.code, _text(state[1])))
        if target.dtype is None:
            raise ValueError(f"an array holds {target.code}, and only u1 and i8 are read")
    elif type(target) is _Array and target.content is None and len(state) == 5:
        _, shape, dtype, fortran_order, content = state
        target.content = _array(shape, dtype, fortran_order, content)
    else:
        raise ValueError("it would set the state of something in a way that no image needs")


def _array(shape: Any, dtype: Any, fortran_order: Any, content: Any) -> np.ndarray:
    """Return the array that fills bytes exactly; nothing is allocated."""
    if type(content) not in (bytes, bytearray) or type(dtype) is not _DType or dtype.dtype is None:
        raise ValueError("an array has no bytes or no dtype")
    sizes = of_type(shape, tuple)
    if len(sizes) > 4 or not all(type(size) is int and 0 <= size < 2**32 for size in sizes):
        raise ValueError("an array has an impossible shape")
    # The bytes are there already, so that no shape can make a small file take much memory.
    if math.prod(sizes) * dtype.dtype.itemsize != len(content):
        raise ValueError(f"an array {sizes} of {dtype.code} does not take {len(content):,} bytes")
    return np.frombuffer(bytes(content), dtype.dtype).reshape(
        sizes, order="F" if fortran_order is True else "C"
    )


def _text(value: Any) -> str:
    if type(value) not in (str, bytes):
        raise ValueError("something is no text")
    return value.decode("latin1") if type(value) is bytes else value


def _finished(value: Any) -> Any:
    if type(value) is _Array:
        if value.content is None:
            raise ValueError("an array has no content")
        return value.content
    return value
