"""Mean and covariance of a set of features that is never held whole, and their files.

    stats = empty(2048)
    for features in ...: stats = add(stats, features)     # any split gives the same, to 1e-14
    mu, sigma = mean_and_covariance(stats)
    save("train.npz", stats, Provenance(...))

A file says what its numbers were made from. Two of them can be compared only if the images went
through the same protocol, weights and preprocessing: `require_comparable` refuses the rest.
"""

import io
import json
import os
import zipfile
from typing import NamedTuple

import numpy as np
from etils import epath

from ddgan_jax.errors import UserError
from ddgan_jax.files.atomic import write_atomically


class FeatureStatistics(NamedTuple):
    """Sums over a set of D-dimensional features, float64."""

    count: int
    total: np.ndarray  # (D,) sum of x
    outer: np.ndarray  # (D, D) sum of x x^T


class Provenance(NamedTuple):
    """What statistics were made from."""

    protocol: str  # of metrics.inception: tf1 or pytorch_fid; "none" for other networks
    weights_sha256: str  # of the weights, as interop.inception.load gives it
    dataset: str  # free text: data set and split, or run and step
    preprocessing: str  # what was done to the images before they met the network
    network: str = "inception"  # one of features.NAMES


class SavedStatistics(NamedTuple):
    """The content of a statistics file."""

    mu: np.ndarray  # float64 (D,)
    sigma: np.ndarray  # float64 (D, D), divided by count - 1
    count: int
    provenance: Provenance
    features: np.ndarray  # float32 (n, D), those of a random part of the set; maybe none


def empty(dim: int) -> FeatureStatistics:
    """The statistics of no features of `dim` dimensions."""
    return FeatureStatistics(0, np.zeros(dim), np.zeros((dim, dim)))


def add(stats: FeatureStatistics, features: np.ndarray) -> FeatureStatistics:
    """`stats` and those of features (N, D), any float dtype, together."""
    x = np.asarray(features, np.float64)
    return merge(stats, FeatureStatistics(len(x), x.sum(0), x.T @ x))


def merge(a: FeatureStatistics, b: FeatureStatistics) -> FeatureStatistics:
    """The statistics of the two sets together."""
    return FeatureStatistics(a.count + b.count, a.total + b.total, a.outer + b.outer)


def mean_and_covariance(stats: FeatureStatistics) -> tuple[np.ndarray, np.ndarray]:
    """mu (D,) and sigma (D, D), divided by N - 1. Raises UserError for fewer than two examples."""
    if stats.count < 2:
        raise UserError(f"a covariance needs at least 2 examples, there are {stats.count}")
    mu = stats.total / stats.count
    return mu, (stats.outer - stats.count * np.outer(mu, mu)) / (stats.count - 1)


def save(
    path: str | os.PathLike,
    stats: FeatureStatistics,
    provenance: Provenance,
    features: np.ndarray | None = None,
) -> None:
    """Writes mu, sigma, n and the provenance to an .npz file, in place of what was there.

    features: float32 (n, D) to go with them, for the metrics that need more than mean and
    covariance: those of a random part of the set. mu and sigma have the names under which other FID
    programs look for them. A kill leaves no half file. Raises UserError if it cannot be written.
    """
    mu, sigma = mean_and_covariance(stats)
    text = json.dumps(provenance._asdict())
    content = io.BytesIO()
    kept = np.zeros((0, len(mu)), np.float32) if features is None else features
    np.savez(content, mu=mu, sigma=sigma, n=stats.count, provenance=text, features=kept)
    write_atomically(path, content.getvalue())


def load(path: str | os.PathLike) -> SavedStatistics:
    """Reads what `save` wrote. Raises UserError for a file that is missing, damaged or not ours."""
    try:
        content = io.BytesIO(epath.Path(path).read_bytes())
        with np.load(content) as file:
            provenance = Provenance(**json.loads(str(file["provenance"])))
            return SavedStatistics(
                file["mu"], file["sigma"], int(file["n"]), provenance, file["features"]
            )
    except OSError as error:
        raise UserError(f"cannot read statistics {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} holds no feature statistics of ours, which say what they were made from: "
            "compute them again"
        ) from error


def require_comparable(a: Provenance, b: Provenance) -> None:
    """Raises UserError naming network, protocol, weights or preprocessing if they differ."""
    compared = ("network", "protocol", "weights_sha256", "preprocessing")
    pairs = [(name, getattr(a, name), getattr(b, name)) for name in compared]
    different = [f"{name} {x} and {y}" for name, x, y in pairs if x != y]
    if different:
        raise UserError(
            f"the statistics of {a.dataset} and of {b.dataset} cannot be compared: "
            f"{'; '.join(different)}: compute them in the same way"
        )
