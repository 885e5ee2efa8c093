"""Reading the pickles of CIFAR-10 without unpickling them.

A pickle is a program for a stack machine, which may name any function of Python and have it called.
`load` is another machine for the same programs: it builds dicts, lists, tuples, numbers, text and
bytes, and it knows the forms in which NumPy writes an array. The names in these forms are marks to
it; nothing is imported and nothing is called. Whatever else a program wants is refused.

Each instruction adds at most one place to the stack or to a container, and bytes are those of the
file, so that memory is bounded by the size of the file, whatever numbers are in it. No value is
walked through, hashed or printed as a whole: values may share their parts, or hold themselves.
"""

import dataclasses
import math
import pickletools
from collections.abc import Iterator
from typing import Any

import numpy as np

MOST_INSTRUCTIONS = 1_000_000  # a batch of CIFAR-10 has about 50,000
_DTYPES = {("u1", "|"): np.dtype("u1"), ("i8", "<"): np.dtype("<i8")}

_EMPTY_ARRAY, _ARRAY, _BUFFER, _DTYPE, _ENCODE = "empty array", "array", "buffer", "dtype", "encode"
_NAMES = {
    "numpy.core.multiarray _reconstruct": _EMPTY_ARRAY,
    "numpy._core.multiarray _reconstruct": _EMPTY_ARRAY,
    "numpy.core.numeric _frombuffer": _BUFFER,
    "numpy._core.numeric _frombuffer": _BUFFER,
    "numpy ndarray": _ARRAY,
    "numpy dtype": _DTYPE,
    "_codecs encode": _ENCODE,
}
_NO_EFFECT = ("PROTO", "FRAME")
_PLAIN = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_PYTHON_2_TEXT = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # bytes, here as the text of Latin-1
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclasses.dataclass(eq=False)
class _Name:
    """One of the names that NumPy's forms use: a mark, not what it names. role: of `_NAMES`."""

    role: str


@dataclasses.dataclass(eq=False)
class _DType:
    """A dtype: its code, such as "u1", and what its state says about it, once that is there."""

    code: str
    dtype: np.dtype | None = None


@dataclasses.dataclass(eq=False)
class _Array:
    """An array: without content at first, as `_reconstruct` makes it."""

    content: np.ndarray | None = None


def load(pickled: bytes) -> dict[str, Any]:
    """Return the top-level dict of a pickle, keyed by text, of any protocol.

    Values are as pickled: lists of whatever they hold, and read-only uint8 or int64 arrays. Raises
    ValueError, or another exception where a program breaks the machine's rules, for everything
    else. Text of Python 2 is bytes; keys may be either.
    """
    value = _Machine().run(pickled)
    if type(value) is not dict:
        raise ValueError("it does not hold a dict")
    return {_text(key): _finished(item) for key, item in value.items()}


class _Machine:
    """The stack machine of pickles, as far as arrays need it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """Return what the program leaves on the stack. Raises an exception if it cannot."""
        for count, (name, argument, position) in enumerate(_instructions(pickled)):
            if count > MOST_INSTRUCTIONS:
                raise ValueError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
            if name == "STOP":
                if position + 1 != len(pickled):
                    raise ValueError("something follows after its end")
                return self.stack.pop()
            self.step(name, argument)
        raise ValueError("it has no end")

    def push(self, value: Any) -> None:
        """Put a value on the stack; the mark of `marked` is gone by then."""
        self.stack.append(value)

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction, named as in `pickletools`."""
        if name in _PLAIN:
            self.push(argument)
        elif name in _PYTHON_2_TEXT:
            self.push(argument.encode("latin1"))
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _NO_EFFECT or self.remember(name, argument) or self.contain(name):
            pass
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.push(self.named(argument))
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            self.push(_reduced(function, arguments))
        elif name == "BUILD":
            state = self.stack.pop()
            _build(self.stack[-1], state)
        else:
            raise ValueError(f"it has the instruction {name}, which no image needs")

    def named(self, argument: str | None) -> _Name:
        """Return the mark for a name; of STACK_GLOBAL the name lies on the stack."""
        if argument is None:
            function, module = self.stack.pop(), self.stack.pop()
            if type(function) is not str or type(module) is not str:
                raise ValueError("a name is no text")
            argument = f"{module} {function}"
        if argument not in _NAMES:
            raise ValueError(f"it would run {argument.replace(' ', '.')}, which no image needs")
        return _Name(_NAMES[argument])

    def remember(self, name: str, argument: int) -> bool:
        """Follow an instruction for the memo or the stack itself; return whether it was one."""
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.push(self.memo[argument])
        elif name == "DUP":
            self.push(self.stack[-1])
        elif name == "POP":
            self.stack.pop()
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name == "POP_MARK":
            self.marked()
        else:
            return False
        return True

    def contain(self, name: str) -> bool:
        """Follow an instruction for dicts, lists and tuples; return whether it was one."""
        if name in ("EMPTY_LIST", "LIST"):
            self.push(self.marked() if name == "LIST" else [])
        elif name in ("EMPTY_TUPLE", "TUPLE"):
            self.push(tuple(self.marked()) if name == "TUPLE" else ())
        elif name in _TUPLES:
            self.push(tuple(reversed([self.stack.pop() for _ in range(_TUPLES[name])])))
        elif name in ("EMPTY_DICT", "DICT"):
            self.push(_paired(self.marked()) if name == "DICT" else {})
        elif name in ("APPEND", "APPENDS"):
            items = self.marked() if name == "APPENDS" else [self.stack.pop()]
            _of_type(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.marked() if name == "SETITEMS" else [self.stack.pop(-2), self.stack.pop()]
            _of_type(self.stack[-1], dict).update(_paired(items))
        else:
            return False
        return True

    def marked(self) -> list[Any]:
        """Return what lies above the last mark, which goes with it."""
        items, self.stack = self.stack, self.below.pop()
        return items


def _instructions(pickled: bytes) -> Iterator[tuple[str, Any, int]]:
    for opcode, argument, position in pickletools.genops(pickled):
        yield opcode.name, argument, position


def _paired(items: list[Any]) -> dict[Any, Any]:
    keys, values = items[::2], items[1::2]
    # Nothing else is a key: the hash of a tuple walks through all that it holds.
    if not all(type(key) in (str, bytes, int) for key in keys):
        raise ValueError("a key of a dict is neither text nor an integer")
    return dict(zip(keys, values, strict=True))


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} is where a {kind.__name__} must be")
    return value


def _reduced(function: Any, arguments: Any) -> Any:
    """Return what a call by that name stands for: an array, a dtype or bytes; nothing is called."""
    role = function.role if type(function) is _Name else ""
    if type(arguments) is not tuple:
        raise ValueError("arguments are no tuple")
    if role == _EMPTY_ARRAY and len(arguments) == 3:
        if type(arguments[0]) is _Name and arguments[0].role == _ARRAY:
            return _Array()
    elif role == _BUFFER and len(arguments) == 4:
        content, dtype, shape, order = arguments
        return _Array(_array(shape, dtype, order == "F", content))
    elif role == _DTYPE and arguments and type(arguments[0]) in (str, bytes):
        return _DType(_text(arguments[0]))
    elif role == _ENCODE and len(arguments) == 2 and type(arguments[0]) is str:
        if arguments[1] != "latin1":
            raise ValueError(f"text is encoded as {_text(arguments[1])}")
        return arguments[0].encode("latin1")
    raise ValueError("it would call something in a way that no image needs")


def _build(target: Any, state: Any) -> None:
    """Give a dtype or an array its state, once."""
    if type(state) is not tuple:
        raise ValueError("a state is no tuple")
    if type(target) is _DType and target.dtype is None and len(state) >= 5:
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
    sizes = _of_type(shape, tuple)
    if len(sizes) > 4 or not all(type(size) is int and 0 <= size < 2**32 for size in sizes):
        raise ValueError("an array has an impossible shape")
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
