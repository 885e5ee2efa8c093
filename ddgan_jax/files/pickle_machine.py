"""Read pickles without unpickling them.

A pickle is a program for a stack machine, and the program may name any function of Python and have
it called. `Machine` is another machine for the same programs. It builds dicts, lists, tuples,
numbers, text and bytes, but imports and calls nothing: a name stays a mark. A subclass decides what
a call of a name stands for, for the few names that its kind of file needs; all others are refused.

Memory and time are bounded by the size of the file, whatever numbers it holds. Each instruction
adds at most one item to the stack or to a container, and bytes are copied from the file. Calls may
copy their arguments, and values may share their parts; so the sizes of all arguments are counted.
No value is walked through, hashed or printed as a whole, since it may contain itself.
"""

import os
import pickletools
from typing import Any, BinaryIO, NamedTuple, NoReturn

_NO_EFFECT = ("PROTO", "FRAME")
_PLAIN = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_PYTHON_2_TEXT = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SIZED = (str, bytes, bytearray, tuple, list, dict)
# The arguments of all calls may take this many times the bytes of the file, and always this much.
# As a rule each part of a file is an argument once, and a few short texts are again and again.
_MOST_GIVEN, _LEAST_GIVEN = 4, 10_000
# Characters of a name with its module.
_LONGEST_NAME = 200


class Name(NamedTuple):
    """A name in a pickle, such as "torch._utils._rebuild_tensor_v2"; the object is not imported."""

    text: str


class Machine:
    """The stack machine of pickles that hold plain containers; subclasses add names and calls."""

    most_instructions = 1_000_000

    def __init__(self) -> None:
        self.stack: list[Any] = []
        # The stacks under the marks.
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # Items and bytes that the arguments of calls may still take.
        self._left = 0

    def run(self, file: BinaryIO) -> Any:
        """Return the value of the program that begins at the file's position, and read past it.

        Raises ValueError, or another exception where a program breaks the machine's rules.
        """
        self.stack, self.below, self.memo = [], [], {}
        start = file.tell()
        self._left = _MOST_GIVEN * file.seek(0, os.SEEK_END) + _LEAST_GIVEN
        file.seek(start)
        # `genops` only parses instructions: it is the part of the standard library that runs
        # nothing.
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > self.most_instructions:
                raise ValueError(f"it has more than {self.most_instructions:,} instructions")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("it has no end")

    # ---- for subclasses

    def named(self, name: str) -> Any:
        """Return the mark for a name, such as "collections.OrderedDict".

        Raises ValueError if the name is refused, as this class refuses all.
        """
        raise ValueError(f"it names {name}")

    def reduced(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """Return the value of a call, or of a new object. Raises ValueError if it is refused."""
        _refuse("call")

    def build(self, target: Any, state: Any) -> None:
        """Set the state of an object. Raises ValueError if it takes none."""
        _refuse("state")

    def persistent(self, identity: Any) -> Any:
        """Return an object that the file keeps outside of the pickle. Raises ValueError if none."""
        _refuse("persistent object")

    # ---- the machine

    def _push(self, value: Any) -> None:
        # `_marked` replaces the stack, so callers must not look it up before they have the value.
        self.stack.append(value)

    def _step(self, name: str, argument: Any) -> None:
        if name in _PLAIN:
            self.stack.append(argument)
        elif name in _PYTHON_2_TEXT:
            # Text of Python 2 may be the bytes of an array.
            self.stack.append(argument.encode("latin1"))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _NO_EFFECT or self._remember(name, argument) or self._contain(name):
            pass
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._push(self.named(self._name(argument)))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self._given(), self.stack.pop()
            self._push(self.reduced(function, of_type(arguments, tuple)))
        elif name == "BUILD":
            state = self._given()
            self.build(self.stack[-1], state)
        elif name == "BINPERSID":
            self._push(self.persistent(self._given()))
        else:
            _refuse(f"instruction {name}")

    def _given(self) -> Any:
        """Take the arguments of a call from the stack, and count their size."""
        value = self.stack.pop()
        self._count(value, 2)
        return value

    def _count(self, value: Any, levels: int) -> None:
        if not isinstance(value, _SIZED):
            return
        self._left -= len(value)
        if self._left < 0:
            raise ValueError("its calls unfold to more than it holds")
        if levels and isinstance(value, tuple | list | dict):
            for part in value.values() if isinstance(value, dict) else value:
                self._count(part, levels - 1)

    def _name(self, argument: str | None) -> str:
        if argument is not None:
            module, name = argument.split(" ", 1)
        else:
            # STACK_GLOBAL takes both from the stack, the name first.
            name, module = self.stack.pop(), self.stack.pop()
        if len(of_type(module, str)) + len(of_type(name, str)) > _LONGEST_NAME:
            raise ValueError("a name in it is too long")
        return f"{module}.{name}"

    def _remember(self, name: str, argument: int) -> bool:
        """Execute an instruction for the memo or the stack itself; return whether it was one."""
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            # Larger numbers could be chosen to have the same hash, which makes a dict slow.
            if abs(argument) >= 2**32:
                raise ValueError("a number of the memo is too large")
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._push(self.memo[argument])
        elif name == "DUP":
            self._push(self.stack[-1])
        elif name == "POP":
            self.stack.pop()
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name == "POP_MARK":
            self._marked()
        else:
            return False
        return True

    def _contain(self, name: str) -> bool:
        """Execute an instruction for dicts, lists and tuples; return whether it was one."""
        if name in ("EMPTY_LIST", "LIST"):
            self._push(self._marked() if name == "LIST" else [])
        elif name in ("EMPTY_TUPLE", "TUPLE"):
            self._push(tuple(self._marked()) if name == "TUPLE" else ())
        elif name in _TUPLES:
            items = [self.stack.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name in ("EMPTY_DICT", "DICT"):
            self._push(paired(self._marked()) if name == "DICT" else {})
        elif name in ("APPEND", "APPENDS"):
            items = self._marked() if name == "APPENDS" else [self.stack.pop()]
            of_type(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._marked() if name == "SETITEMS" else [self.stack.pop(-2), self.stack.pop()]
            of_type(self.stack[-1], dict).update(paired(items))
        else:
            return False
        return True

    def _marked(self) -> list[Any]:
        """Take the last mark and the values above it from the stack; return the values."""
        items, self.stack = self.stack, self.below.pop()
        return items


def paired(items: list[Any]) -> dict[Any, Any]:
    """Return the dict of alternating keys and values. Raises ValueError for refused keys."""
    keys, values = items[::2], items[1::2]
    # Other keys are refused: hashing a tuple walks through everything in it, and any number of
    # large integers could be chosen to have the same hash.
    if not all(type(k) in (str, bytes) or (type(k) is int and abs(k) < 2**60) for k in keys):
        raise ValueError("a key of a dict is neither text nor an integer of ordinary size")
    return dict(zip(keys, values, strict=True))


def of_type(value: Any, kind: type) -> Any:
    """Return the value unchanged. Raises ValueError if it is not of exactly that type."""
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} is where a {kind.__name__} must be")
    return value


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"it has a {what}, which no file of this kind needs")
