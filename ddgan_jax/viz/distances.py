"""Measure distances between images: the L2 norm of their difference, with both in [-1, 1]."""

import itertools

import numpy as np
from jaxtyping import Float, Float64, UInt8

from ddgan_jax.pixels import HALF_RANGE


def mean_pairwise(images: Float[np.ndarray, "k h w c"]) -> float:
    """Return the mean distance of all pairs of two images or more, which lie in [-1, 1]."""
    return float(np.mean([np.linalg.norm(a - b) for a, b in itertools.combinations(images, 2)]))


def from_one(
    images: UInt8[np.ndarray, "n h w c"], one: UInt8[np.ndarray, "h w c"]
) -> Float64[np.ndarray, " n"]:
    """Return the distance of each image from a given one."""
    # Integers are exact, so that the distances of equal images are equal, in any order.
    difference = images.astype(np.int64) - one
    return np.sqrt(np.square(difference).sum((1, 2, 3))) / HALF_RANGE
