"""Make the toy data of the SIDDM paper, twenty-five Gaussians on a grid, as images of one pixel.

A point is (1, 1, 2) float32: two channels, no scaling to [-1, 1]. "mog25" has the authors'
numbers: centres 5 apart from 0 to 20, standard deviation 1/3 cut off at 3 of them, 10,000 points
each. "mog25_scaled" is the same set centred and halved, so that most noise levels leave some of the
modes apart and some not; at the authors' scale nearly all leave them apart.
"""

from collections.abc import Mapping

import numpy as np

SPACING = 5.0
SIDE = 5  # centres per side
POINTS_PER_CENTRE = 10_000
STD = 1 / 3
RADIUS = 1.0  # of a mode: 3 standard deviations
MEAN = SPACING * (SIDE - 1) / 2

# (offset, scale) of each set: stored point = (point - offset) / scale.
SETS: Mapping[str, tuple[float, float]] = {"mog25": (0.0, 1.0), "mog25_scaled": (MEAN, 2.0)}


def centres() -> np.ndarray:
    """Return the 25 centres, float64 (25, 2)."""
    axis = SPACING * np.arange(SIDE)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def points() -> tuple[np.ndarray, np.ndarray]:
    """Return the points, float64 (250000, 2), and their centres, int32; the same in every run."""
    labels = np.repeat(np.arange(SIDE**2, dtype=np.int32), POINTS_PER_CENTRE)
    noise = np.random.Generator(np.random.Philox(25)).standard_normal((len(labels), 2))
    return centres()[labels] + np.clip(STD * noise, -3 * STD, 3 * STD), labels


def to_set(name: str, points: np.ndarray) -> np.ndarray:
    """Return points (n, 2) as the set stores them: float32 (n, 1, 1, 2)."""
    offset, scale = SETS[name]
    return ((points - offset) / scale).astype(np.float32)[:, None, None, :]


def from_set(name: str, stored: np.ndarray) -> np.ndarray:
    """Return stored points (n, 1, 1, 2) as float64 (n, 2): the inverse of `to_set`."""
    offset, scale = SETS[name]
    return np.asarray(stored, np.float64).reshape(-1, 2) * scale + offset
