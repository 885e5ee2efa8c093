"""Compute the Frechet distance of two sets of features (Heusel et al. 2017; Inception's: FID).

Each set is taken for a Gaussian with its mean mu and its covariance S, divided by N - 1. The
squared 2-Wasserstein distance of two Gaussians is

    d = |mu_a - mu_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)                                (1)

Let A be any factor of S_a = A^T A, and B of S_b = B^T B. S_a S_b = A^T A B^T B has the non-zero
eigenvalues of M M^T with M = A B^T, and those are the squared singular values s of M, so that

    tr (S_a S_b)^(1/2) = sum_i s_i(A B^T),      tr S_a = |A|^2,      tr S_b = |B|^2             (2)

Nothing is squared and rooted again, so singular covariances, those of fewer examples than features,
cost no accuracy, and the distance of a set to itself is zero to the last few bits. A matrix square
root or the eigenvalues of S_a S_b err by 1e-4 there. Where all eigenvalues of M M^T are well above
rounding, their roots are good to 1e-10 of the variance, and take a third of the time.

The factor is the centred features themselves, X / sqrt(N - 1), if they are few. Otherwise, and
where only S is known, it is that of Cholesky where S is far from singular, and if it is not
diag(sqrt w) V^T from S = V diag(w) V^T, which takes thirty times as long.
"""

import numpy as np
from jaxtyping import Float

from ddgan_jax.errors import UserError
from ddgan_jax.metrics.finite import require_finite

# Examples that are converted to float64 at a time.
_ROWS = 4096
# Smallest over largest pivot: rounding moves eigenvalues by 1e-16 of the largest, and the roots of
# those near zero would feel it.
_FAR_FROM_SINGULAR = 1e-6
# Smallest over largest eigenvalue of M M^T: rounding moves them by 1e-16 of the largest, and the
# root of the smallest by half of that over it, 2e-10.
_ABOVE_ROUNDING = 1e-13


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m other_d"]) -> float:
    """Return d of equation 1 between two sets of features of any float dtype, one example a row.

    It is computed in float64 and takes memory of O(d^2) beside the features. Rounding may leave a
    distance of zero at about -1e-12 of the variance. Raises UserError for sets of fewer than two
    examples or of different widths, and NotFiniteError.
    """
    _require_same_width(a.shape[1], b.shape[1])
    require_finite(a=a, b=b)
    return _distance(*_mean_and_factor(a), *_mean_and_factor(b))


def frechet_distance_from_statistics(
    mu_a: Float[np.ndarray, " d"],
    sigma_a: Float[np.ndarray, "d d"],
    mu_b: Float[np.ndarray, " other_d"],
    sigma_b: Float[np.ndarray, "other_d other_d"],
) -> float:
    """Return d of equation 1 from means and covariances, float64; see `frechet_distance`."""
    _require_same_width(len(mu_a), len(mu_b))
    require_finite(mu_a=mu_a, sigma_a=sigma_a, mu_b=mu_b, sigma_b=sigma_b)
    return _distance(mu_a, _factor(sigma_a), mu_b, _factor(sigma_b))


def _require_same_width(a: int, b: int) -> None:
    if a != b:
        raise UserError(f"cannot compare features of {a} and of {b} dimensions")


def _distance(mu_a: np.ndarray, a: np.ndarray, mu_b: np.ndarray, b: np.ndarray) -> float:
    # The traces come from the same factors as the root, so that their rounding cancels in the
    # distance of a set to itself.
    traces = np.square(a).sum() + np.square(b).sum()
    return float(np.square(mu_a - mu_b).sum() + traces - 2 * _trace_of_root(a @ b.T))


def _trace_of_root(m: np.ndarray) -> float:
    """Return the sum of the singular values of M (equation 2)."""
    # Eigenvalues of a symmetric matrix take a third of the time of singular values. Their roots are
    # as good only where no eigenvalue is near rounding.
    squares = np.linalg.eigvalsh(m @ m.T)
    if (squares > _ABOVE_ROUNDING * squares.max(initial=0)).all():
        return np.sqrt(squares).sum()
    return np.linalg.svd(m, compute_uv=False).sum()


def _mean_and_factor(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features = np.asarray(features)
    count, dim = features.shape
    if count < 2:
        raise UserError(f"a covariance needs at least 2 examples, there are {count}")
    mean = features.mean(0, dtype=np.float64)
    # Few examples are a factor of their own covariance, smaller than the covariance itself.
    if count <= dim:
        return mean, (features - mean) / np.sqrt(count - 1)
    # In parts, so that the float64 copy of the features is never held whole.
    scatter = np.zeros((dim, dim))
    for start in range(0, count, _ROWS):
        centred = features[start : start + _ROWS] - mean
        scatter += centred.T @ centred
    return mean, _factor(scatter / (count - 1))


def _factor(sigma: np.ndarray) -> np.ndarray:
    """Return F (r, d) with F^T F = sigma, r the number of eigenvalues that are above rounding."""
    try:
        factor = np.linalg.cholesky(sigma, upper=True)
        pivots = np.square(np.diagonal(factor))
        if pivots.min() > _FAR_FROM_SINGULAR * pivots.max():
            return factor
    # The covariance is singular, up to rounding.
    except np.linalg.LinAlgError:
        pass
    # Eigenvalues below the rounding of the largest one may be negative, and have no root.
    values, vectors = np.linalg.eigh(sigma)
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    return np.sqrt(values[kept])[:, None] * vectors[:, kept].T
