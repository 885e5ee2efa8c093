"""Compute the kernel distance of two sets of features (Binkowski et al. 2018; Inception's: KID).

The squared maximum mean discrepancy of the cubic kernel of D-dimensional features,

    k(x, y) = (x.y / D + 1)^3                                                                   (1)
    MMD^2 = sum_{i != j} k(a_i, a_j) / (n (n - 1)) + sum_{i != j} k(b_i, b_j) / (m (m - 1))
            - 2 / (n m) sum_{i, j} k(a_i, b_j)                                                  (2)

is unbiased: it averages 0 over sets of one distribution, whatever their sizes, and may be negative.
Cubes lose digits; everything is float64.
"""

import numpy as np
from jaxtyping import Float

from ddgan_jax.errors import UserError
from ddgan_jax.metrics.finite import require_finite

# Rows of the kernel matrix that are held at a time.
_ROWS = 1024


def polynomial_kernel(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    """Return k of equation 1 of all pairs, float64, from features of any float dtype."""
    k = a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1
    # NumPy's power of floats takes ten times as long as two products.
    return k * k * k


def kernel_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Return MMD^2 of equation 2 over all pairs of two sets of any float dtype.

    Holds O(m d) numbers beside the features. Raises UserError for sets of fewer than two examples,
    and NotFiniteError.
    """
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise UserError(f"the kernel distance needs 2 examples or more, there are {n} and {m}")
    require_finite(a=a, b=b)
    # Between two sets every pair is of different examples, so that none is left out.
    cross = _sum_of_pairs(a, b) / (n * m)
    return _mean_of_distinct_pairs(a) + _mean_of_distinct_pairs(b) - 2 * cross


def kernel_distance_of_subsets(
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "m d"],
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
    """Return mean and standard deviation of MMD^2 over random subsets: the KID that papers report.

    A subset takes `size` examples of each set without replacement. NumPy's legacy generator draws
    them in the order of torch-fidelity, so that its numbers come out. The standard deviation is
    that of the subsets alone (divided by their number).

    Raises UserError for a set with fewer than `size` examples, and NotFiniteError.
    """
    if min(len(a), len(b)) < size:
        raise UserError(
            f"the kernel distance takes subsets of {size}, there are {len(a)} and {len(b)} examples"
        )
    # Drawn in turn from the two sets, as torch-fidelity does it.
    random = np.random.RandomState(seed)
    distances = []
    for _ in range(subsets):
        rows_a = random.choice(len(a), size, replace=False)
        rows_b = random.choice(len(b), size, replace=False)
        distances.append(kernel_distance(a[rows_a], b[rows_b]))
    return float(np.mean(distances)), float(np.std(distances))


def _sum_of_pairs(a: np.ndarray, b: np.ndarray) -> float:
    # Blocks of rows, so that memory grows with one set and not with the product of both.
    starts = range(0, len(a), _ROWS)
    return float(sum(polynomial_kernel(a[i : i + _ROWS], b).sum() for i in starts))


def _mean_of_distinct_pairs(a: np.ndarray) -> float:
    # The sum over all pairs, less that over i = j, so that the matrix is never held whole.
    norms = np.square(a, dtype=np.float64).sum(1)
    diagonal = ((norms / a.shape[1] + 1) ** 3).sum()
    return (_sum_of_pairs(a, a) - float(diagonal)) / (len(a) * (len(a) - 1))
