"""Make the toy data of the SIDDM paper, twenty-five Gaussians on a grid, as images of one pixel.

A point is (1, 1, 2) float32: two channels, no scaling to [-1, 1]. "mog25" has the authors'
numbers: centres 5 apart from 0 to 20, standard deviation 1/3 cut off at 3 of them, 10,000 points
each. "mog25_scaled" is the same set centred and halved, so that most noise levels leave some of the
modes apart and some not; at the authors' scale nearly all leave them apart.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

SPACING = 5.0
# Centres per side.
SIDE = 5
POINTS_PER_CENTRE = 10_000
STD = 1 / 3
MEAN = SPACING * (SIDE - 1) / 2

# (offset, scale) of each set: stored point = (point - offset) / scale.
SETS: Mapping[str, tuple[float, float]] = {"mog25": (0.0, 1.0), "mog25_scaled": (MEAN, 2.0)}


def centres() -> Float[np.ndarray, "25 2"]:
    """Return the 25 centres."""
    axis = SPACING * np.arange(SIDE)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def points() -> tuple[Float[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """Return the 250,000 points and the number of the centre of each, the same in every run."""
    # A fixed seed of Philox: the set is part of the experiment, and not of a run.
    labels = np.repeat(np.arange(SIDE**2, dtype=np.int32), POINTS_PER_CENTRE)
    noise = np.random.Generator(np.random.Philox(25)).standard_normal((len(labels), 2))
    return centres()[labels] + np.clip(STD * noise, -3 * STD, 3 * STD), labels


def to_set(name: str, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 1 1 2"]:
    """Return points as the set stores them, float32."""
    offset, scale = SETS[name]
    return ((points - offset) / scale).astype(np.float32)[:, None, None, :]


def from_set(name: str, stored: Float[np.ndarray, "n 1 1 2"]) -> Float[np.ndarray, "n 2"]:
    """Return stored points as float64: the inverse of `to_set`."""
    offset, scale = SETS[name]
    return np.asarray(stored, np.float64).reshape(-1, 2) * scale + offset
