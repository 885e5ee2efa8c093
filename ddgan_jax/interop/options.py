"""Read options of other programs' command lines from their checkpoints or from JSON files.

A value may be a string where the other program's parser gives its options no type. Each kind of
option has a reader, which returns the value in our form and raises ValueError for any other.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ddgan_jax.config.schema import MOST_ENTRIES
from ddgan_jax.errors import UserError, reason, shown

Reader = Callable[[Any], Any]
Number = TypeVar("Number", int, float)

# The words that guided-diffusion's `str2bool` reads.
_TRUE, _FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


def mapping(args: Any, program: str) -> dict[str, Any]:
    """Return options by name, given as a mapping or an argparse.Namespace; UserError otherwise."""
    try:
        return dict(args) if isinstance(args, Mapping) else dict(vars(args))
    except TypeError as error:
        raise UserError(f"the {program} options are not options by name") from error


def read(args: Mapping[str, Any], option: str, reader: Reader, program: str) -> Any:
    """Return the value of an option. Raises UserError if it is missing or not possible."""
    if option not in args:
        raise UserError(f"{program} option {option} is missing and has no default")
    try:
        return reader(args[option])
    except ValueError as error:
        raise UserError(f"{program} option {option}: {reason(error)}") from error


def integer(least: int, most: int) -> Reader:
    """Return the reader of integers from `least` to `most`, both included."""

    def read_integer(value: Any) -> int:
        # A float with an integer value is read too: JSON files and shells may write 4.0.
        number = _number(value)
        if number != math.floor(number):
            raise ValueError(f"{shown(value)} is not an integer")
        return _within(int(number), least, most)

    return read_integer


def number(least: float = -math.inf, most: float = math.inf) -> Reader:
    """Return the reader of finite numbers from `least` to `most`, both included."""

    def read_number(value: Any) -> float:
        return _within(_number(value), least, most)

    return read_number


def boolean(value: Any) -> bool:
    """Return the value of a switch."""
    # bool("False") would be True.
    text = str(value).lower() if isinstance(value, bool | int | str) else ""
    if text not in _TRUE + _FALSE:
        raise ValueError(f"{_kind(value)} is not a boolean")
    return text in _TRUE


def choice(*known: str) -> Reader:
    """Return the reader of one of the known words."""

    def read_choice(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{_kind(value)} is not one of {', '.join(known)}")
        return value

    return read_choice


def text(value: Any) -> str:
    """Return a string as it is."""
    if not isinstance(value, str):
        raise ValueError(f"{_kind(value)} is not a text")
    return value


def optional(reader: Reader) -> Reader:
    """Return the reader that also takes None."""
    return lambda value: None if value is None else reader(value)


def sequence(reader: Reader, least: int = 1) -> Reader:
    """Return the reader of a few values of a kind as a tuple, or of a single one."""

    def read_sequence(value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list | tuple) else [value]
        if not least <= len(values) <= MOST_ENTRIES:
            raise ValueError(f"it has {len(values):,} entries, not {least} to {MOST_ENTRIES}")
        return tuple(map(reader, values))

    return read_sequence


def _within(number: Number, least: float, most: float) -> Number:
    if number < least:
        raise ValueError(f"{shown(number)} is less than {least}")
    if number > most:
        raise ValueError(f"{shown(number)} is more than {most}")
    return number


def _number(value: Any) -> float | int:
    """Return a finite number, an integer as such. A text of one is read."""
    # True is an integer to Python.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{_kind(value)} is not a number")
    try:
        found = float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{_kind(value)} is not a number that is possible") from error
    if not math.isfinite(found):
        raise ValueError(f"{_kind(value)} is not finite")
    # Large integers would lose digits as floats.
    return value if isinstance(value, int) else found


def _kind(value: Any) -> str:
    """Return a value as text for a message; of a value that may hold anything only its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return shown(repr(value)) if isinstance(value, str) else shown(value)
    return f"a {type(value).__name__}"
