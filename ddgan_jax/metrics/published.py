"""Read statistics that other FID programs publish: mean and covariance, without a word on either.

pytorch-fid's files hold `mu` and `sigma`; those of ADM also `mu_s` and `sigma_s`, of spatial
features, and some of the images, `arr_0`. Nothing in them says which images these were, how many,
or how they were resized, so that nothing of it can be checked.
"""

import os
from pathlib import Path

import numpy as np

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import arrays
from ddgan_jax.files.paths import user_path
from ddgan_jax.metrics.statistics import Provenance, SavedStatistics, moments_problem

# Numbers in the Inception features of which such files are.
DIMENSION = 2048
NOT_KNOWN = "not known"


def is_published(path: str | os.PathLike) -> bool:
    """Return whether a file holds mu and sigma, and none of what our own files hold besides.

    Raises UserError for a file that is missing or damaged.
    """
    names = set(arrays.open_arrays(user_path(path, "reference")).forms)
    return {"mu", "sigma"} <= names and not {"n", "provenance", "features"} & names


def load(path: str | os.PathLike, protocol: str) -> SavedStatistics:
    """Return mean and covariance of a published file, with a count of 0 and no features.

    protocol: the one that the user takes the file to follow. Raises UserError for numbers that are
    not the mean and covariance of Inception features.
    """
    path = user_path(path, "reference")
    file = arrays.open_arrays(path)
    mu, sigma = file.load("mu"), file.load("sigma")
    if problem := moments_problem(mu, sigma):
        raise UserError(f"{shown(path, 300)} holds no mean and covariance: {problem}")
    if len(mu) != DIMENSION:
        raise UserError(
            f"{shown(path, 300)} is of features of {len(mu):,} numbers, and those of Inception "
            f"have {DIMENSION:,}"
        )
    provenance = Provenance(
        protocol,
        weights_sha256=NOT_KNOWN,
        dataset=Path(path).name,
        preprocessing=f"{NOT_KNOWN}: another program's file; protocol {protocol} is taken for its",
    )
    mu, sigma = np.asarray(mu, np.float64), np.asarray(sigma, np.float64)
    return SavedStatistics(mu, sigma, 0, provenance, np.zeros((0, len(mu)), np.float32))
