"""Convert pixels: whole numbers from 0 to 255, as people see them, and floats from -1 to 1."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from ddgan_jax.errors import NotFiniteError
from ddgan_jax.state import AnyArray

# Levels of uint8 from -1 to 0, and from 0 to 1.
HALF_RANGE = 127.5


def are_points(shape: Sequence[int]) -> bool:
    """Return whether an example of this shape is a point of the toy sets: two coordinates."""
    # Images have one channel or three, so that two can only be coordinates.
    return shape[-1] == 2


def to_float(pixels: Any, dtype: Any = np.float32) -> Any:
    """Return an array of whole numbers from 0 to 255 as floats in [-1, 1].

    Arrays of numpy stay with numpy, arrays on devices and tracers stay with JAX.
    """
    return pixels.astype(dtype) / HALF_RANGE - 1


def to_uint8(images: np.ndarray | jax.Array) -> UInt8[np.ndarray, "*shape"]:
    """Return float images in [-1, 1] as uint8: (x + 1) * 127.5 to the nearest, and clipped.

    Halves go to the even neighbour. It is the inverse of `to_float` for each of the 256 values.
    Raises NotFiniteError on NaN and infinity, which have no colour.
    """
    floats = np.asarray(images, np.float32)
    # A cast of NaN to uint8 gives an arbitrary colour, and the picture would look as if nothing
    # were wrong.
    if not np.isfinite(floats).all():
        raise NotFiniteError("the images hold numbers that are not finite")
    return np.clip(np.rint((floats + 1) * HALF_RANGE), 0, 255).astype(np.uint8)


def to_uint8_on_device(images: Float[AnyArray, "*shape"]) -> jax.Array:
    """Return the same inside a compiled function, where nothing can be refused: NaN becomes 0."""
    levels = jnp.clip(jnp.round((images + 1) * HALF_RANGE), 0, 255)
    return jnp.where(jnp.isnan(levels), 0, levels).astype(jnp.uint8)
