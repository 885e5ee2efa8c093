"""Which metrics there are, what their numbers are called, and how they are computed.

A name is a promise of comparability: only features of Inception give `fid`, `is` and `kid`; those
of other networks have the plain names with that of the network, `frechet_pixels`. A number of
another count of images than papers use says so: `fid_5000`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ddgan_jax import metrics
from ddgan_jax.config.files import did_you_mean
from ddgan_jax.errors import NotFiniteError, UserError
from ddgan_jax.metrics.statistics import SavedStatistics, mean_and_covariance

if TYPE_CHECKING:
    from ddgan_jax.evaluation.reference import Gathered

STANDARD = 50_000  # generated images behind a published number
STANDARD_MODES = 26_000  # of Stacked MNIST
NUM_MODES = 1000
SPLITS = 10  # of the Inception Score
NEIGHBOURS = {"precision_recall": 3, "density_coverage": 5}
SUBSETS, SUBSET_SIZE = 100, 1000  # of the kernel distance
SHUFFLE_SEED = 2020  # torch-fidelity's: images may come in an order, which splits must not see


class Metric(NamedTuple):
    """What can be asked for. networks: of features.NAMES, those it is for.

    values: names of its numbers; for networks other than inception that of the network is added.
    fewest: images that it needs.
    """

    values: tuple[str, ...]
    networks: tuple[str, ...]
    fewest: int


_OTHERS = ("classifier", "pixels")
METRICS: Mapping[str, Metric] = {
    "fid": Metric(("fid",), ("inception",), 2),
    "is": Metric(("is", "is_std"), ("inception",), SPLITS),
    "kid": Metric(("kid", "kid_std"), ("inception",), SUBSET_SIZE),
    "frechet": Metric(("frechet",), _OTHERS, 2),
    "score": Metric(("score", "score_std"), ("classifier",), SPLITS),
    "kernel": Metric(("kernel", "kernel_std"), _OTHERS, SUBSET_SIZE),
    "prdc": Metric(
        ("precision", "recall", "density", "coverage"),
        ("inception", *_OTHERS),
        max(NEIGHBOURS.values()) + 1,
    ),
    "modes": Metric(("modes", "modes_kl"), ("inception", *_OTHERS), 1),
}
_PLAIN = {"fid": "frechet", "is": "score", "kid": "kernel"}
_NEED_VECTORS = ("kid", "kernel", "prdc")
_NEED_LOGITS = ("is", "score")
HIGHER_IS_BETTER = ("is", "score", "precision", "recall", "density", "coverage", "modes")


def check(asked: Sequence[str], network: str) -> None:
    """Raises UserError for a metric that is unknown, or that the network's features do not give."""
    for name in asked:
        if name not in METRICS:
            nearest = did_you_mean(name, METRICS) or f"; there are {', '.join(METRICS)}"
            raise UserError(f"there is no metric {name!r}{nearest}")
        if network in METRICS[name].networks:
            continue
        if name in _PLAIN and network in METRICS[_PLAIN[name]].networks:
            raise UserError(
                f"{name} is the name of a number from Inception features: with features "
                f"{network!r} ask for {_PLAIN[name]!r}"
            )
        known = [other for other, metric in METRICS.items() if network in metric.networks]
        raise UserError(
            f"there is no metric {name!r} of features {network!r}; there are {', '.join(known)}"
        )


def check_count(asked: Sequence[str], count: int, *, allow_small: bool) -> None:
    """Raises UserError for too few images: to be computed, or to be compared with papers."""
    for name in asked:
        if count < METRICS[name].fewest:
            raise UserError(
                f"{name} needs at least {METRICS[name].fewest:,} images, there are {count:,}"
            )
        if count < standard_count(name) and not allow_small:
            raise UserError(
                f"published numbers of {name} are of {standard_count(name):,} images, there are "
                f"{count:,}: --allow-small computes one of that name, {name}_{count}"
            )


def standard_count(name: str) -> int:
    """Images behind a published number of the metric."""
    return STANDARD_MODES if name == "modes" else STANDARD


def needs_reference(asked: Sequence[str]) -> bool:
    """Whether generated images are compared with real ones."""
    return bool(set(asked) - {"modes", *_NEED_LOGITS})


def needs_network(asked: Sequence[str]) -> bool:
    """Whether a feature network is needed: modes have a classifier of their own."""
    return set(asked) != {"modes"}


def needs_vectors(asked: Sequence[str]) -> bool:
    """Whether mean and covariance of the features are not enough."""
    return any(name in _NEED_VECTORS for name in asked)


def needs_logits(asked: Sequence[str]) -> bool:
    """Whether class scores of the generated images are needed."""
    return any(name in _NEED_LOGITS for name in asked)


def value_names(asked: Sequence[str], network: str, count: int) -> dict[str, str]:
    """The plain name of every number, and its full one: {"frechet": "frechet_pixels_1000"}."""
    names = {}
    for metric in asked:
        of = "" if network == "inception" or metric == "modes" else f"_{network}"
        small = "" if used_count(metric, count) == standard_count(metric) else f"_{count}"
        names |= {value: f"{value}{of}{small}" for value in METRICS[metric].values}
    return names


def used_count(name: str, count: int) -> int:
    """How many of the images the metric takes: modes are those of the first 26,000."""
    return min(count, STANDARD_MODES) if name == "modes" else count


def compute(
    asked: Sequence[str],
    fake: "Gathered",
    reference: SavedStatistics | None,
) -> dict[str, float]:
    """The numbers by their plain names, as they are: rounding may leave a distance below 0.

    reference: None if `needs_reference` says so. Modes are those of fake.labels. Raises UserError
    for sets that are too small, NotFiniteError for numbers that are not finite.
    """
    values: dict[str, float] = {}
    if {"fid", "frechet"} & set(asked):
        ours = mean_and_covariance(fake.stats)
        distance = metrics.frechet_distance_from_statistics(reference.mu, reference.sigma, *ours)
        values["fid" if "fid" in asked else "frechet"] = distance
    for name in {"kid", "kernel"} & set(asked):
        pair = metrics.kernel_distance_of_subsets(
            reference.features, fake.vectors, subsets=SUBSETS, size=SUBSET_SIZE
        )
        values |= dict(zip(METRICS[name].values, pair, strict=True))
    for name in {"is", "score"} & set(asked):
        order = np.random.RandomState(SHUFFLE_SEED).permutation(len(fake.logits))
        pair = metrics.inception_score(fake.logits[order], SPLITS)
        values |= dict(zip(METRICS[name].values, pair, strict=True))
    if "prdc" in asked:
        # Of as many real images: both numbers depend on how many there are.
        real = reference.features[: len(fake.vectors)]
        for function, k in NEIGHBOURS.items():
            pair = getattr(metrics, function)(real, fake.vectors, k)
            values |= pair._asdict()
    if "modes" in asked:
        modes, kl = metrics.mode_statistics(fake.labels[:STANDARD_MODES], NUM_MODES)
        values |= {"modes": modes, "modes_kl": kl}
    bad = [f"{name} is {value:g}" for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise NotFiniteError(
            f"{', '.join(bad)}: the features of the images, or those of the reference, are too "
            "large for their covariance"
        )
    return values


def is_better(name: str, value: float, best: float | None) -> bool:
    """Whether a number of that plain name is better than the best so far, None: there is none."""
    if best is None:
        return True
    return value > best if name in HIGHER_IS_BETTER else value < best
