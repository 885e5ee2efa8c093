"""Compute the numbers that are asked for from a stream of generated images, by their names.

The command `ddgan evaluate` and the evaluations during a run score images with the same object.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from ddgan_jax import metrics
from ddgan_jax.data.datasets import Dataset
from ddgan_jax.errors import NotFiniteError
from ddgan_jax.evaluation import classifier
from ddgan_jax.evaluation.classifier import Trained
from ddgan_jax.evaluation.features import FeatureNetwork, open_network
from ddgan_jax.evaluation.gather import Gathered, Images, gather
from ddgan_jax.metrics import names
from ddgan_jax.metrics.statistics import SavedStatistics, mean_and_covariance

T = TypeVar("T")
Pair = tuple[float, float]

SUBSETS = 100  # of the kernel distance
# Images may come in the order of their classes, and the splits of the Inception Score must not:
# torch-fidelity shuffles them with this seed, and its numbers come out.
SHUFFLE_SEED = 2020


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """Scores sets of `count` generated images; open one with `open_scorer`.

    Attributes:
      metrics: Names of metrics.names.METRICS.
      count: Number of images in a set.
      network: The feature network.
      reference: Statistics of the real images, None if no metric compares with them.
      digits: The classifier of single digits, None if no modes are counted.
    """

    metrics: tuple[str, ...]
    count: int
    network: FeatureNetwork
    reference: SavedStatistics | None
    digits: Trained | None

    @property
    def names(self) -> dict[str, str]:
        """Return the full names of the numbers by their plain ones; see `names.value_names`."""
        return names.value_names(self.metrics, self.network.name, self.count)

    def __call__(self, images: Iterable[Images]) -> dict[str, float]:
        """Return the numbers of a set of images, which come in chunks, by their full names.

        Raises NotFiniteError if a number or a feature is not finite.
        """
        digits = self.digits
        label = None if digits is None else functools.partial(label_with, digits)
        fake = gather(
            images,
            self.network,
            total=self.count,
            # Vectors are kept only for metrics that compare them one by one: they take the most
            # memory.
            keep=self.count if names.reads(self.metrics, "vectors") else 0,
            logits=names.reads(self.metrics, "logits"),
            label=label,
        )
        values = compute(self.metrics, fake, self.reference)
        return {full: float(values[plain]) for plain, full in self.names.items()}


def open_scorer(
    asked: Sequence[str],
    count: int,
    *,
    features: str,
    protocol: str,
    inception_file: str,
    dataset: Callable[[], Dataset],
    config: Callable[[], ConfigDict],
    reference: Callable[[FeatureNetwork], SavedStatistics],
    report: Callable[[str], None],
) -> Scorer:
    """Open all that the metrics need, and nothing that they do not need.

    Args:
      asked: Metrics that `names.check` has accepted for these features.
      count: Number of images to be scored.
      features: One of names.FEATURES.
      protocol: One of names.PROTOCOLS.
      inception_file: The converted Inception weights, "" for those in the cache folder.
      dataset: Opens the real images.
      config: Returns a config with the data of stacked digits, for counting modes.
      reference: Returns the statistics of the real images.
      report: Takes messages about classifiers and statistics that are made once.

    Raises UserError if any of this cannot be opened.
    """
    # Modes alone need no features. The pixels stand in for them, since they need no weights.
    network = open_network(
        features if names.needs_features(asked) else "pixels",
        dataset,
        protocol=protocol,
        inception_file=inception_file,
        report=report,
    )
    # The labels of modes come from a classifier of single digits, whatever the feature network is.
    digits = classifier.of_stacked_digits(config(), report) if "modes" in asked else None
    real = reference(network) if names.needs_reference(asked) else None
    return Scorer(tuple(asked), count, network, real, digits)


def label_with(digits: Trained, images: Images) -> Int[np.ndarray, " n"]:
    """Return the labels of stacked digits; see `classifier.label_stacks`."""
    return classifier.label_stacks(digits.params, images)


def compute(
    asked: Sequence[str], fake: Gathered, reference: SavedStatistics | None
) -> dict[str, float]:
    """Return the numbers by their plain names. Rounding may leave a distance slightly below 0.

    reference: Statistics of the real images, None if `names.needs_reference` is false. Raises
    UserError for sets that are too small, NotFiniteError for numbers that are not finite.
    """
    values: dict[str, float] = {}
    for name in asked:
        numbers = _COMPUTE[name](fake, reference)
        values |= dict(zip(names.METRICS[name].values, numbers, strict=True))
    # Finite features may be so large that their squares are not.
    bad = [f"{name} is {value:g}" for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise NotFiniteError(
            f"{', '.join(bad)}: the features of the images, or those of the reference, are too "
            "large for their covariance"
        )
    return values


def _frechet(fake: Gathered, reference: SavedStatistics | None) -> tuple[float]:
    real = _given(reference, "a reference")
    moments = mean_and_covariance(fake.stats)
    return (metrics.frechet_distance_from_statistics(real.mu, real.sigma, *moments),)


def _kernel(fake: Gathered, reference: SavedStatistics | None) -> Pair:
    real = _given(reference, "a reference")
    return metrics.kernel_distance_of_subsets(
        real.features, fake.vectors, subsets=SUBSETS, size=names.SUBSET_SIZE
    )


def _score(fake: Gathered, _: SavedStatistics | None) -> Pair:
    logits = _given(fake.logits, "logits")
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(logits))
    return metrics.inception_score(logits[order], names.SPLITS)


def _prdc(fake: Gathered, reference: SavedStatistics | None) -> tuple[float, float, float, float]:
    # As many real images as generated ones: the numbers depend on both counts, and published ones
    # are of equal counts.
    real = _given(reference, "a reference").features[: len(fake.vectors)]
    k = names.NEIGHBOURS
    precision, recall = metrics.precision_recall(real, fake.vectors, k["precision_recall"])
    density, coverage = metrics.density_coverage(real, fake.vectors, k["density_coverage"])
    return precision, recall, density, coverage


def _modes(fake: Gathered, _: SavedStatistics | None) -> Pair:
    labels = _given(fake.labels, "labels")
    # The divergence depends on the count: papers take 26,000 images, also of a larger set.
    used = names.used_count("modes", len(labels))
    return metrics.mode_statistics(labels[:used], names.NUM_MODES)


def _given(value: T | None, what: str) -> T:
    if value is None:
        raise ValueError(f"these metrics need {what}")
    return value


# Names of other features than Inception's are the same computations.
_COMPUTE: Mapping[str, Callable[[Gathered, SavedStatistics | None], tuple[float, ...]]] = {
    "fid": _frechet,
    "frechet": _frechet,
    "is": _score,
    "score": _score,
    "kid": _kernel,
    "kernel": _kernel,
    "prdc": _prdc,
    "modes": _modes,
}
