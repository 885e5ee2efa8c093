"""Compute the metrics that are asked for, from what was gathered of generated and real images."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ddgan_jax import metrics
from ddgan_jax.errors import NotFiniteError
from ddgan_jax.metrics import names
from ddgan_jax.metrics.statistics import SavedStatistics, mean_and_covariance

if TYPE_CHECKING:
    from ddgan_jax.evaluation.reference import Gathered

SUBSETS = 100  # of the kernel distance
SHUFFLE_SEED = 2020  # torch-fidelity's: images may come in an order, which splits must not see


def compute(
    asked: Sequence[str],
    fake: "Gathered",
    reference: SavedStatistics | None,
) -> dict[str, float]:
    """The numbers by their plain names, as they are: rounding may leave a distance below 0.

    reference: None if `names.needs_reference` is false. Modes are those of fake.labels. Raises
    UserError for sets that are too small, NotFiniteError for numbers that are not finite.
    """
    values: dict[str, float] = {}
    if {"fid", "frechet"} & set(asked):
        ours = mean_and_covariance(fake.stats)
        distance = metrics.frechet_distance_from_statistics(reference.mu, reference.sigma, *ours)
        values["fid" if "fid" in asked else "frechet"] = distance
    for name in {"kid", "kernel"} & set(asked):
        pair = metrics.kernel_distance_of_subsets(
            reference.features, fake.vectors, subsets=SUBSETS, size=names.SUBSET_SIZE
        )
        values |= dict(zip(names.METRICS[name].values, pair, strict=True))
    for name in {"is", "score"} & set(asked):
        order = np.random.RandomState(SHUFFLE_SEED).permutation(len(fake.logits))
        pair = metrics.inception_score(fake.logits[order], names.SPLITS)
        values |= dict(zip(names.METRICS[name].values, pair, strict=True))
    if "prdc" in asked:
        # Of as many real images: both numbers depend on how many there are.
        real = reference.features[: len(fake.vectors)]
        for function, k in names.NEIGHBOURS.items():
            pair = getattr(metrics, function)(real, fake.vectors, k)
            values |= pair._asdict()
    if "modes" in asked:
        modes, kl = metrics.mode_statistics(
            fake.labels[: names.PUBLISHED_COUNT_OF_MODES], names.NUM_MODES
        )
        values |= {"modes": modes, "modes_kl": kl}
    bad = [f"{name} is {value:g}" for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise NotFiniteError(
            f"{', '.join(bad)}: the features of the images, or those of the reference, are too "
            "large for their covariance"
        )
    return values
