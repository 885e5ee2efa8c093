"""Check what a person passes to a model, and turn it into arrays."""

from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from ddgan_jax.config import MOST_IMAGES
from ddgan_jax.errors import UserError, shown


def integers(name: str, values: Any, most: int, least: int = 0) -> Int64[np.ndarray, " n"]:
    """Return the integers of an argument, one or more.

    Raises UserError, naming the argument, for anything but a sequence of integers in that range.
    """
    try:
        count = len(values)
        if count > MOST_IMAGES:
            raise UserError(f"`{name}`: {count:,} of them; at most {MOST_IMAGES:,} are possible")
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"`{name}`: {shown(repr(values))} is no sequence of integers") from error
    if array.dtype.kind == "O" and all(type(value) is int for value in array.flat):
        # Python's integers may have more than 64 bits. The nearest value out of range is as wrong.
        array = np.clip(array, least - 1, most + 1).astype(np.int64)
    # Booleans and floats are refused, even whole ones: NumPy would cut a float without a word.
    if array.dtype.kind not in "iu" or array.ndim != 1 or not count:
        raise UserError(f"`{name}`: {shown(repr(values))} is no list of integers")
    # Both ends of the range of all values say as much as a look at each.
    for value in (array.min(), array.max()):
        if not least <= value <= most:
            raise UserError(f"`{name}`: {value} does not lie between {least} and {most}")
    return array.astype(np.int64)


def integer(name: str, value: Any, most: int, least: int = 0) -> int:
    """Return the integer of an argument. Raises UserError as `integers`."""
    return int(integers(name, [value], most, least)[0])


def pixels(images: Any) -> Shaped[np.ndarray, "..."]:
    """Return given images as an array of whole numbers from 0 to 255, of any numeric type.

    Raises UserError for anything else.
    """
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise UserError("`images` are no array") from error
    if array.dtype.kind not in "uif":
        raise UserError(f"`images` are {array.dtype}: give uint8, 0 to 255")
    # NaN fails every comparison, so that it is refused here, too.
    if not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise UserError("`images` are not whole numbers from 0 to 255, such as uint8 holds")
    return array
