"""How far images are from each other: the L2 norm of their difference, both in [-1, 1]."""

import itertools

import numpy as np

from ddgan_jax.images import HALF_RANGE


def mean_pairwise(images: np.ndarray) -> float:
    """Of all pairs of images (K, H, W, C), float in [-1, 1], K >= 2. 0 if all are equal."""
    return float(np.mean([np.linalg.norm(a - b) for a, b in itertools.combinations(images, 2)]))


def from_one(images: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Of each uint8 image (N, H, W, C) from a given one (H, W, C), float64 (N,)."""
    difference = images.astype(np.int64) - one
    return np.sqrt(np.square(difference).sum((1, 2, 3))) / HALF_RANGE
