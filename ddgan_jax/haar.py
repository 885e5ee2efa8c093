"""Split images into their Haar bands at half the resolution, and join them again.

For each block of 2 x 2 pixels, a and b above c and d, the bands are

    LL = (a + b + c + d) / 2     LH = (a - b + c - d) / 2                                       (1)
    HL = (a + b - c - d) / 2     HH = (a - b - c + d) / 2

LH is what changes from left to right, HL what changes from top to bottom. The transform is
orthonormal and its own inverse, up to the places of the pixels:

    a = (LL + LH + HL + HH) / 2  b = (LL - LH + HL - HH) / 2                                    (2)
    c = (LL + LH - HL - HH) / 2  d = (LL - LH - HL + HH) / 2

LL / 2 is the mean of the block, and joining 2 h with bands of zeros repeats every pixel of h as
2 x 2. Blocks do not overlap, so that no border needs care.

WaveDiff (Phung, Dao, Tran 2023) does diffusion on the bands of an image, divided by 2 so that they
stay in [-1, 1], as the channels of one image of half the size:

    y = concat(LL, LH, HL, HH) / 2                                                              (3)

The detail bands come in two orders, since the published code uses two libraries. Noise of standard
deviation s on y is noise of 2 s on the pixels.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ddgan_jax.state import AnyArray


class Details(NamedTuple):
    """The bands of differences, each (..., H / 2, W / 2, C)."""

    lh: AnyArray
    hl: AnyArray
    hh: AnyArray


def split(x: Float[AnyArray, "*n h w c"]) -> tuple[AnyArray, Details]:
    """Return LL and the details of images with even sides, equation 1.

    Raises ValueError if a side is odd.
    """
    *n, h, w, c = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"an image of {h} x {w} pixels has no Haar bands: its sides must be even")
    blocks = x.reshape(*n, h // 2, 2, w // 2, 2, c)
    # One axis after the other: eight additions for four bands instead of twelve.
    left, right = blocks[..., 0, :], blocks[..., 1, :]
    low, high = (left + right) / 2, (left - right) / 2
    low_above, low_below = low[..., 0, :, :], low[..., 1, :, :]
    high_above, high_below = high[..., 0, :, :], high[..., 1, :, :]
    details = Details(high_above + high_below, low_above - low_below, high_above - high_below)
    return low_above + low_below, details


def join(ll: Float[AnyArray, "*n h w c"], details: Details) -> jax.Array:
    """Return the images (..., 2 H, 2 W, C) of LL and details, equation 2."""
    *n, h, w, c = ll.shape
    lh, hl, hh = details
    low_above, low_below = (ll + hl) / 2, (ll - hl) / 2
    high_above, high_below = (lh + hh) / 2, (lh - hh) / 2
    above = jnp.stack([low_above + high_above, low_above - high_above], axis=-2)
    below = jnp.stack([low_below + high_below, low_below - high_below], axis=-2)
    return jnp.stack([above, below], axis=-4).reshape(*n, 2 * h, 2 * w, c)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The space of the images themselves."""

    def encode(self, images: AnyArray) -> AnyArray:
        """Return the images."""
        return images

    def decode(self, x: AnyArray) -> AnyArray:
        """Return x."""
        return x


@dataclasses.dataclass(frozen=True)
class Bands:
    """The space of Haar bands, equation 3. order: of the details, "lh_hl" or "hl_lh"."""

    order: str = "lh_hl"

    def encode(self, images: Float[AnyArray, "*n h w c"]) -> jax.Array:
        """Return y (..., H / 2, W / 2, 4 C), [-1, 1], of images in [-1, 1] with even sides."""
        ll, details = split(images)
        return jnp.concatenate([ll, *self._ordered(details)], axis=-1) / 2

    def decode(self, y: Float[AnyArray, "*n h w c"]) -> jax.Array:
        """Return the images (..., 2 H, 2 W, C / 4) of y; outside of [-1, 1] they are not cut."""
        ll, *details = jnp.split(2 * y, 4, axis=-1)
        return join(ll, self._ordered(Details(*details)))

    def _ordered(self, details: Details) -> Details:
        # An exchange of two bands is its own inverse.
        lh, hl, hh = details
        return Details(hl, lh, hh) if self.order == "hl_lh" else details


# Where a network sees images, and where their noise is drawn.
Space = Pixels | Bands
