"""Reading pickles without unpickling them.

A pickle is a program for a stack machine, which may name any function of Python and have it called.
`Machine` is another machine for the same programs: it builds dicts, lists, tuples, numbers, text
and bytes. A name is a mark to it; nothing is imported and nothing is called. What a call of a name
stands for, a subclass says for the few names that its kind of file needs; the rest is refused.

Each instruction adds at most one place to the stack or to a container, and bytes are those of the
file. Calls may copy what they are given, and values may share their parts, so that what all calls
are given is counted. Memory and time are by that bounded by the size of the file, whatever numbers
are in it. No value is walked through, hashed or printed as a whole: it may hold itself.
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
# Calls are given each part of a file once, as a rule, and a few short texts again and again.
_MOST_GIVEN, _LEAST_GIVEN = 4, 10_000  # times the bytes of the file, and at least so much
_LONGEST_NAME = 200  # characters


class Name(NamedTuple):
    """A name in a pickle, such as "torch._utils._rebuild_tensor_v2": a mark, not what it names."""

    text: str


class Machine:
    """The stack machine of pickles for plain containers; subclasses know names beside them."""

    most_instructions = 1_000_000

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}
        self._left = 0  # of what calls may be given

    def run(self, file: BinaryIO) -> Any:
        """Return what the program that begins here leaves behind; the file is then after it.

        Raises ValueError, or another exception where a program breaks the machine's rules.
        """
        self.stack, self.below, self.memo = [], [], {}
        start = file.tell()
        self._left = _MOST_GIVEN * file.seek(0, os.SEEK_END) + _LEAST_GIVEN
        file.seek(start)
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > self.most_instructions:
                raise ValueError(f"it has more than {self.most_instructions:,} instructions")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("it has no end")

    # ---- what subclasses know

    def named(self, name: str) -> Any:
        """Return the mark for a name, such as "collections.OrderedDict". Raises if it is refused.

        Here all are.
        """
        raise ValueError(f"it names {name}")

    def reduced(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what a call stands for, of a new object too. Raises ValueError if it is none."""
        _refuse("call")

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state. Raises ValueError if it takes none."""
        _refuse("state")

    def persistent(self, identity: Any) -> Any:
        """Return what the file keeps outside of the pickle. Raises ValueError if it does not."""
        _refuse("persistent object")

    # ---- the machine

    def _push(self, value: Any) -> None:
        """Put a value on the stack as it is by now: taking what was marked has changed it."""
        self.stack.append(value)

    def _step(self, name: str, argument: Any) -> None:
        if name in _PLAIN:
            self.stack.append(argument)
        elif name in _PYTHON_2_TEXT:
            self.stack.append(argument.encode("latin1"))  # bytes, as which it may be an array's
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
        """Take what a call is given from the stack, and count it."""
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
            name, module = self.stack.pop(), self.stack.pop()  # of STACK_GLOBAL
        if len(of_type(module, str)) + len(of_type(name, str)) > _LONGEST_NAME:
            raise ValueError("a name in it is too long")
        return f"{module}.{name}"

    def _remember(self, name: str, argument: int) -> bool:
        """Follow an instruction for the memo or the stack itself; return whether it was one."""
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if abs(argument) >= 2**32:  # larger ones could all have one hash
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
        """Follow an instruction for dicts, lists and tuples; return whether it was one."""
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
        """Return what lies above the last mark, which goes with it."""
        items, self.stack = self.stack, self.below.pop()
        return items


def paired(items: list[Any]) -> dict[Any, Any]:
    """Return the dict of keys and values in turn. Raises ValueError for keys that are not plain."""
    keys, values = items[::2], items[1::2]
    # Nothing else is a key: the hash of a tuple walks through all that it holds, and any number of
    # large integers could have one hash.
    if not all(type(k) in (str, bytes) or (type(k) is int and abs(k) < 2**60) for k in keys):
        raise ValueError("a key of a dict is neither text nor an integer of ordinary size")
    return dict(zip(keys, values, strict=True))


def of_type(value: Any, kind: type) -> Any:
    """Return the value. Raises ValueError if it is not of exactly that type."""
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} is where a {kind.__name__} must be")
    return value


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"it has a {what}, which no file of this kind needs")
