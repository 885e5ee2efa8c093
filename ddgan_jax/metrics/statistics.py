"""Gather mean and covariance of a set of features that is never held whole; read and write them.

    stats = empty(2048)
    for features in ...: stats = add(stats, features)     # any split gives the same, to 1e-14
    mu, sigma = mean_and_covariance(stats)
    save("train.npz", stats, Provenance(...))

A file says what its numbers were made from. Two files can be compared only if the images went
through the same protocol, weights and preprocessing; `require_comparable` refuses the others.
"""

import dataclasses
import io
import json
import os
from collections.abc import Mapping
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from jaxtyping import Float

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import arrays, foreign
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.files.paths import user_path


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Sums over a set of features x, float64."""

    count: int
    total: Float[np.ndarray, " d"]  # sum of x
    outer: Float[np.ndarray, "d d"]  # sum of x x^T


class Provenance(NamedTuple):
    """The origin of statistics: everything that must agree before two sets are compared."""

    # One of metrics.names.PROTOCOLS; "none" for other networks.
    protocol: str
    # As interop.inception.load gives it.
    weights_sha256: str
    # Free text: data set and split, or run and step.
    dataset: str
    # Free text: the way from stored images to the network.
    preprocessing: str
    # One of metrics.names.FEATURES; files without a network are of Inception.
    network: str = "inception"


class _ProvenanceFields(TypedDict):
    """The provenance as text in a file; files of earlier versions do not name the network."""

    protocol: str
    weights_sha256: str
    dataset: str
    preprocessing: str
    network: NotRequired[str]


_FORM = ("mu", "sigma", "n", "provenance", "features")  # the arrays of a file
# Bound of the numbers in a file, so that their squares are finite, too.
_LARGEST = 1e100


@dataclasses.dataclass(frozen=True, eq=False)
class SavedStatistics:
    """The content of a statistics file."""

    mu: Float[np.ndarray, " d"]  # float64
    sigma: Float[np.ndarray, "d d"]  # float64, divided by count - 1
    count: int  # 0: not known, see `published`
    provenance: Provenance
    # float32, of a random part of the set; kept may be 0.
    features: Float[np.ndarray, "kept d"]


def empty(dim: int) -> FeatureStatistics:
    """Return the statistics of no features at all, of `dim` dimensions."""
    return FeatureStatistics(0, np.zeros(dim), np.zeros((dim, dim)))


def add(stats: FeatureStatistics, features: Float[np.ndarray, "n d"]) -> FeatureStatistics:
    """Return the statistics with further features, of any float dtype, added."""
    # Sums of float32 over 50,000 images would lose the digits that the covariance is made of.
    x = np.asarray(features, np.float64)
    return merge(stats, FeatureStatistics(len(x), x.sum(0), x.T @ x))


def merge(a: FeatureStatistics, b: FeatureStatistics) -> FeatureStatistics:
    """Return the statistics of two sets together."""
    return FeatureStatistics(a.count + b.count, a.total + b.total, a.outer + b.outer)


def mean_and_covariance(
    stats: FeatureStatistics,
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Return mean and covariance (divided by n - 1). Raises UserError for one example or none."""
    if stats.count < 2:
        raise UserError(f"a covariance needs at least 2 examples, there are {stats.count}")
    mu = stats.total / stats.count
    return mu, (stats.outer - stats.count * np.outer(mu, mu)) / (stats.count - 1)


def save(
    path: str | os.PathLike,
    stats: FeatureStatistics,
    provenance: Provenance,
    features: Float[np.ndarray, "kept d"] | None = None,
) -> None:
    """Write mu, sigma, n and the provenance to an .npz file, which replaces an older one.

    stats, provenance, features: see `saved`. Raises UserError if it cannot be written.
    """
    write(path, saved(stats, provenance, features))


def saved(
    stats: FeatureStatistics,
    provenance: Provenance,
    features: Float[np.ndarray, "kept d"] | None = None,
) -> SavedStatistics:
    """Return statistics as a file holds them.

    features: float32 (n, D) of a random part of the set, for the metrics that need more than mean
    and covariance. Raises UserError for fewer than two examples.
    """
    mu, sigma = mean_and_covariance(stats)
    # A file always has all arrays, so that an absent one is damage.
    kept = np.zeros((0, len(mu)), np.float32) if features is None else features
    return SavedStatistics(mu, sigma, stats.count, provenance, kept)


def write(path: str | os.PathLike, content: SavedStatistics) -> None:
    """Write statistics to an .npz file, which replaces an older one.

    mu and sigma have the names under which other FID programs look for them. A kill leaves no
    partial file. Raises UserError if it cannot be written.
    """
    file = io.BytesIO()
    np.savez(
        file,
        mu=content.mu,
        sigma=content.sigma,
        n=content.count,
        provenance=json.dumps(content.provenance._asdict()),
        features=content.features,
    )
    # The archive is written in memory first, so that the file is replaced whole.
    write_atomically(user_path(path, "statistics"), file.getvalue())


def load(path: str | os.PathLike) -> SavedStatistics:
    """Return what `save` wrote.

    Raises UserError for a file that is missing, damaged or not ours, and for numbers that cannot be
    mean and covariance of anything.
    """
    path = user_path(path, "statistics")
    file = arrays.open_arrays(path)
    missing = [name for name in _FORM if name not in file.forms]
    if missing:
        raise UserError(
            f"{shown(path, 300)} holds no feature statistics of ours, which say what they were "
            f"made from: it has no {', '.join(missing)}; compute them again"
        )
    found = {name: file.load(name) for name in _FORM}
    text = arrays.text_of(found, "provenance", path).encode()
    provenance = Provenance(**foreign.decode_json(text, _ProvenanceFields, source=path))
    # A file may come from anybody. Numbers that no set of features can have would give a wrong
    # distance without any error.
    if problem := _problem(found):
        raise UserError(
            f"{shown(path, 300)} is damaged, or no file of feature statistics: {problem}; compute "
            "them again"
        )
    mu, sigma = (np.asarray(found[name], np.float64) for name in ("mu", "sigma"))
    return SavedStatistics(mu, sigma, int(found["n"]), provenance, found["features"])


def _problem(found: Mapping[str, np.ndarray]) -> str:
    """Return the first fault of the numbers in a statistics file, "" for none."""
    mu, sigma, features = (found[name] for name in ("mu", "sigma", "features"))
    if found["n"].shape != () or found["n"].dtype.kind not in "iu" or not 2 <= found["n"] < 2**53:
        return "n is no number of images, 2 or more"
    dim = len(mu) if mu.ndim == 1 else 0
    if not dim or sigma.shape != (dim, dim) or features.ndim != 2 or features.shape[1] != dim:
        shapes = ", ".join(f"{name} {found[name].shape}" for name in ("mu", "sigma", "features"))
        return f"{shapes} are not of one dimension"
    if len(features) > found["n"]:
        return f"there are {len(features):,} features of {found['n']:,} images"
    return _number_problem("features", features) or moments_problem(mu, sigma)


def moments_problem(mu: np.ndarray, sigma: np.ndarray) -> str:
    """Return why two arrays of any form are no mean and covariance, "" if they are."""
    if mu.ndim != 1 or not len(mu) or sigma.shape != (len(mu), len(mu)):
        return f"mu {mu.shape}, sigma {sigma.shape} are not of one dimension"
    if problem := _number_problem("mu", mu) or _number_problem("sigma", sigma):
        return problem
    return _covariance_problem(np.asarray(mu, np.float64), np.asarray(sigma, np.float64))


def _number_problem(name: str, values: np.ndarray) -> str:
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        return f"{name} holds what is no finite number"
    if float(np.abs(values).max(initial=0)) > _LARGEST:
        return f"{name} is too large for any features"
    return ""


def _covariance_problem(mu: np.ndarray, sigma: np.ndarray) -> str:
    """Return why sigma is no covariance up to the rounding of sums about zero, "" if it is one."""
    # The covariance is a difference of sums, whose rounding grows with the square of the mean.
    scale = np.abs(sigma).max()
    rounding = 1e-6 * scale + 1e-9 * np.square(mu).max()
    # Written as "not ... <=", so that NaN is refused as well.
    if not np.abs(sigma - sigma.T).max() <= rounding:
        return "sigma is not symmetric"
    try:
        # Cholesky fails for a direction of negative variance. The shift forgives rounding, and
        # makes a covariance of zeros possible.
        np.linalg.cholesky(sigma + (rounding + np.finfo(np.float64).tiny) * np.eye(len(sigma)))
    except np.linalg.LinAlgError:
        return "sigma is no covariance, since some direction has a negative variance"
    return ""


def require_comparable(a: Provenance, b: Provenance) -> None:
    """Raise UserError for another network, protocol, other weights or preprocessing."""
    # Not the data set: comparing two sets is what statistics are for.
    compared = ("network", "protocol", "weights_sha256", "preprocessing")
    pairs = [(name, getattr(a, name), getattr(b, name)) for name in compared]
    different = [f"{name} {x} and {y}" for name, x, y in pairs if x != y]
    if different:
        raise UserError(
            f"the statistics of {a.dataset} and of {b.dataset} cannot be compared: "
            f"{'; '.join(different)}: compute them in the same way"
        )
