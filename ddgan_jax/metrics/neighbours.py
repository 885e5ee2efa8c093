"""Compute precision and recall, density and coverage of generated features among real ones.

r_k(x; X) is the distance from x to its k-th nearest neighbour in X, x itself not counted; the
balls of these radii around the points of X stand for the support of its distribution.

    precision = share of fakes f with d(f, x) <= r_k(x; real) for some real x                   (1)
    recall    = share of reals x with d(x, f) <= r_k(f; fake) for some fake f                   (2)
    density   = sum_f #{x : d(f, x) < r_k(x; real)} / (k M),  M fakes                           (3)
    coverage  = share of reals x with d(f, x) < r_k(x; real) for some fake f                    (4)

(1) and (2) are those of Kynkaanniemi et al. 2019, (3) and (4) of Naeem et al. 2020; the strictness
is that of their definitions, and matters for duplicates.

Squared distances come from matrix products, |u|^2 + |v|^2 - 2 u.v, block by block and in float64.
The mean of the reference is subtracted first: it would cancel, and take the digits with it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ddgan_jax.errors import UserError
from ddgan_jax.metrics.finite import require_finite

# Rows and columns of a block, in which matrices of distances are held.
BLOCK = 2048

# Fraction of |u|^2 + |v|^2 by which one squared distance may differ between two blocks. Distances
# that are closer than that are a tie: equal points, and the same pair seen in both orders.
ROUNDING = 1e-12


class PrecisionRecall(NamedTuple):
    """Equations 1 and 2, each in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Equations 3 and 4; density may exceed 1."""

    density: float
    coverage: float


def precision_recall(
    real: Float[np.ndarray, "n d"],
    fake: Float[np.ndarray, "m d"],
    k: int = 3,
    *,
    block: int = BLOCK,
) -> PrecisionRecall:
    """Return precision and recall of fake features among real ones, of any float dtype.

    Recall depends on the sizes: compare only numbers of the same n and m, customarily 50,000 each.
    Raises UserError for sets of k or fewer examples, and NotFiniteError.
    """
    require_finite(real=real, fake=fake)
    # One centre for both sets, as distances between them are taken, too.
    centre = real.mean(0, dtype=np.float64)
    real_radii = neighbour_radii(real, k, centre=centre, block=block)
    fake_radii = neighbour_radii(fake, k, centre=centre, block=block)
    in_real, _ = count_in_balls(fake, real, real_radii, closed=True, centre=centre, block=block)
    in_fake, _ = count_in_balls(real, fake, fake_radii, closed=True, centre=centre, block=block)
    return PrecisionRecall(float((in_real > 0).mean()), float((in_fake > 0).mean()))


def density_coverage(
    real: Float[np.ndarray, "n d"],
    fake: Float[np.ndarray, "m d"],
    k: int = 5,
    *,
    block: int = BLOCK,
) -> DensityCoverage:
    """Return density and coverage of fake features among real ones, of any float dtype.

    Raises UserError for k or fewer real examples, and NotFiniteError.
    """
    require_finite(real=real, fake=fake)
    centre = real.mean(0, dtype=np.float64)
    radii = neighbour_radii(real, k, centre=centre, block=block)
    holders, held = count_in_balls(fake, real, radii, closed=False, centre=centre, block=block)
    # Of two sets of one distribution, k balls hold a fake on average, and the density is 1.
    return DensityCoverage(float(holders.mean() / k), float((held > 0).mean()))


def neighbour_radii(
    points: Float[np.ndarray, "n d"],
    k: int,
    *,
    centre: Float[np.ndarray, " d"],
    block: int = BLOCK,
) -> Float[np.ndarray, " n"]:
    """Return r_k(x; points) of every point x, float64. centre: See `count_in_balls`."""
    if len(points) <= k:
        raise UserError(f"{k} neighbours need more than {k} examples, there are {len(points)}")
    # Squared distances of the k + 1 nearest so far. The point itself is one of them, at distance 0.
    nearest = np.full((len(points), k + 1), np.inf)
    for rows, _, squares, _ in _blocks(points, points, centre, block):
        candidates = np.concatenate([nearest[rows], squares], axis=1)
        # A partition orders only the k-th place, which is all that the radius needs.
        nearest[rows] = np.partition(candidates, k, axis=1)[:, : k + 1]
    return np.sqrt(nearest.max(1))


def count_in_balls(
    points: Float[np.ndarray, "m d"],
    centres: Float[np.ndarray, "n d"],
    radii: Float[np.ndarray, " n"],
    *,
    closed: bool,
    centre: Float[np.ndarray, " d"],
    block: int = BLOCK,
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " n"]]:
    """Return how many balls hold each point, and how many points each ball holds.

    centres, radii: The balls; `closed` ones hold their surface. centre: A point that is subtracted
    from all others before distances are taken, which keeps digits that would cancel.
    """
    holders = np.zeros(len(points), np.int64)
    held = np.zeros(len(centres), np.int64)
    for rows, columns, squares, rounding in _blocks(points, centres, centre, block):
        # Ties go to the side that the definition names, and not to that of the rounding.
        limit = np.square(radii[columns])
        inside = squares <= limit + rounding if closed else squares < limit - rounding
        holders[rows] += inside.sum(1)
        held[columns] += inside.sum(0)
    return holders, held


def _blocks(
    points: np.ndarray, others: np.ndarray, centre: np.ndarray, block: int
) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
    """Yield rows, columns, squared distances and their rounding of the matrix points x others."""
    for i in range(0, len(points), block):
        u = points[i : i + block] - centre
        for j in range(0, len(others), block):
            v = others[j : j + block] - centre
            scale = np.square(u).sum(1)[:, None] + np.square(v).sum(1)
            # Rounding may leave the square of a small distance below zero.
            squares = np.maximum(scale - 2 * (u @ v.T), 0)
            yield slice(i, i + block), slice(j, j + block), squares, ROUNDING * scale
