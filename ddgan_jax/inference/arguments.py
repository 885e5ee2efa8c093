"""Check what a person passes to a model, and turn it into arrays.

Whatever is passed, each function returns a checked value or raises UserError with the name of the
argument.
"""

import os
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from ddgan_jax.config import MOST_IMAGES
from ddgan_jax.errors import UserError, reason, shown


def seeds(value: Any, largest: int) -> Int64[np.ndarray, " n"]:
    """Return the seeds that a person asks for: an integer is a count, the seeds 0 to N - 1.

    largest: the largest seed. Raises UserError as `integers`.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if not 1 <= value <= MOST_IMAGES:
            images = f"no number of images from 1 to {MOST_IMAGES:,}"
            raise UserError(f"`seeds`: {shown(value)} is {images}")
        return np.arange(int(value))
    return integers("seeds", value, largest)


def integers(name: str, values: Any, most: int, least: int = 0) -> Int64[np.ndarray, " n"]:
    """Return the integers of an argument, one or more.

    Raises UserError, naming the argument, for anything but a sequence of integers in that range.
    """
    try:
        count = len(values)
        if count > MOST_IMAGES:
            raise UserError(f"`{name}`: {count:,} of them; at most {MOST_IMAGES:,} are possible")
        array = np.asarray(values)
    except UserError:
        raise
    # Arrays of other libraries raise errors of their own when they are counted or copied.
    except Exception as error:
        raise UserError(f"`{name}`: {_text(values)} is no sequence of integers") from error
    if array.dtype.kind == "O" and all(type(value) is int for value in array.flat):
        # Python's integers may have more than 64 bits. The nearest value out of range is as wrong.
        array = np.clip(array, least - 1, most + 1).astype(np.int64)
    # Booleans and floats are refused, even whole ones: NumPy would cut a float without a word.
    if array.dtype.kind not in "iu" or array.ndim != 1 or not count:
        raise UserError(f"`{name}`: {_text(values)} is no list of integers")
    # Both ends of the range of all values say as much as a look at each.
    for value in (array.min(), array.max()):
        if not least <= value <= most:
            raise UserError(f"`{name}`: {value} does not lie between {least} and {most}")
    return array.astype(np.int64)


def integer(name: str, value: Any, most: int, least: int = 0) -> int:
    """Return the integer of an argument. Raises UserError as `integers`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UserError(f"`{name}`: {_text(value)} is no integer")
    return int(integers(name, [value], most, least)[0])


def pixels(images: Any) -> Shaped[np.ndarray, "..."]:
    """Return given images as an array of whole numbers from 0 to 255, of any numeric type.

    Raises UserError for anything else.
    """
    try:
        array = np.asarray(images)
    except Exception as error:
        raise UserError(f"`images` are no array ({reason(error)})") from error
    if array.dtype.kind not in "uif":
        raise UserError(f"`images` are {array.dtype}: give uint8, 0 to 255")
    # NaN fails every comparison, so that it is refused here, too.
    if not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise UserError("`images` are not whole numbers from 0 to 255, such as uint8 holds")
    return array


def text(name: str, value: Any, longest: int) -> str:
    """Return the text of an argument. Raises UserError for another type or a longer text."""
    if not isinstance(value, str):
        raise UserError(f"`{name}`: {_text(value)} is no text")
    if len(value) > longest:
        raise UserError(f"`{name}`: a text of {len(value):,} characters; at most {longest:,}")
    return value


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return a text that is one of the choices. Raises UserError for anything else."""
    if not isinstance(value, str) or value not in choices:
        given = shown(value) if isinstance(value, str) else _text(value)
        *others, last = [word for word in choices if word]
        raise UserError(f"`{name}={given}` is not {', '.join(others)} or {last}")
    return value


def switch(name: str, value: Any) -> bool:
    """Return True or False. Raises UserError for anything else, since "no" would count as true."""
    if not isinstance(value, bool):
        raise UserError(f"`{name}`: {_text(value)} is neither True nor False")
    return value


def path(name: str, value: Any) -> str:
    """Return the text of a path. Raises UserError for anything but a text or a `pathlib` path."""
    try:
        written = os.fspath(value)
    except Exception as error:
        raise UserError(f"`{name}`: {_text(value)} is no path") from error
    if not isinstance(written, str):
        raise UserError(f"`{name}`: {_text(value)} is bytes, not text")
    return written


def _text(value: Any) -> str:
    """Return a value as Python writes it, cut; its type if it cannot be written."""
    try:
        # This one does not write out a list of a million entries before it is cut.
        return shown(reprlib.repr(value))
    except Exception:
        return f"a value of type {type(value).__name__}"
