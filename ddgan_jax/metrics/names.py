"""Name the metrics, what each of them needs, and the numbers that it gives.

A name is a promise of comparability. Only features of Inception give `fid`, `is` and `kid`; numbers
of other features carry the name of those features, `frechet_pixels`. A number from another count of
images than papers use carries that count, `fid_5000`.

This module imports no numpy: configs are checked and help pages are printed without it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from ddgan_jax.errors import UserError, did_you_mean

FEATURES = ("inception", "classifier", "pixels")
# The ways to prepare images for Inception.
PROTOCOLS = ("tf1", "pytorch_fid")
# Its published weights, converted by pytorch-fid's author from TensorFlow's.
INCEPTION_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)

# Generated images behind a published number.
PUBLISHED_COUNT = 50_000
# Generated images behind the published modes of Stacked MNIST.
PUBLISHED_COUNT_OF_MODES = 26_000
# Modes of stacked digits: three digits of ten classes.
NUM_MODES = 1000
# Splits of the Inception Score.
SPLITS = 10
# Images in a subset of the kernel distance.
SUBSET_SIZE = 1000
# The number k of nearest neighbours in the papers of the two pairs of numbers.
NEIGHBOURS = {"precision_recall": 3, "density_coverage": 5}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric that users can ask for.

    Attributes:
      values: The plain names of its numbers.
      features: Names of the features that it is defined for.
      reads: The part of the generated images that it reads: "moments" (mean and covariance of the
        features) and "vectors" (the features themselves), both in comparison with real images;
        "logits" (class scores of the feature network); "labels" (of the digits of each image).
      fewest: The smallest number of images for which it exists.
      published_count: The number of generated images behind published numbers.
    """

    values: tuple[str, ...]
    features: tuple[str, ...]
    reads: Literal["moments", "vectors", "logits", "labels"]
    fewest: int
    published_count: int = PUBLISHED_COUNT


_INCEPTION, _OTHERS = ("inception",), ("classifier", "pixels")
METRICS: Mapping[str, Metric] = {
    "fid": Metric(("fid",), _INCEPTION, "moments", fewest=2),
    "is": Metric(("is", "is_std"), _INCEPTION, "logits", fewest=SPLITS),
    "kid": Metric(("kid", "kid_std"), _INCEPTION, "vectors", fewest=SUBSET_SIZE),
    "frechet": Metric(("frechet",), _OTHERS, "moments", fewest=2),
    "score": Metric(("score", "score_std"), ("classifier",), "logits", fewest=SPLITS),
    "kernel": Metric(("kernel", "kernel_std"), _OTHERS, "vectors", fewest=SUBSET_SIZE),
    "prdc": Metric(
        ("precision", "recall", "density", "coverage"),
        FEATURES,
        "vectors",
        # A point is no neighbour of its own.
        fewest=max(NEIGHBOURS.values()) + 1,
    ),
    "modes": Metric(
        ("modes", "modes_kl"), FEATURES, "labels", 1, published_count=PUBLISHED_COUNT_OF_MODES
    ),
}
# The same number of other features than Inception's has a name without a promise.
_OF_OTHER_FEATURES = {"fid": "frechet", "is": "score", "kid": "kernel"}
HIGHER_IS_BETTER = ("is", "score", "precision", "recall", "density", "coverage", "modes")


def of_features(features: str) -> list[str]:
    """Return the metrics of these features; modes, which stacked digits have, must be named."""
    found = METRICS.items()
    return [name for name, metric in found if features in metric.features and name != "modes"]


def check(asked: Sequence[str], features: str) -> None:
    """Refuse metrics that are unknown, or that are not defined for these features.

    Raises UserError.
    """
    for name in asked:
        if name not in METRICS:
            nearest = did_you_mean(name, METRICS) or f"; there are {', '.join(METRICS)}"
            raise UserError(f"there is no metric {name!r}{nearest}")
        if features in METRICS[name].features:
            continue
        # Who asks for the published name gets the name of the same number of these features.
        other_name = _OF_OTHER_FEATURES.get(name)
        if other_name and features in METRICS[other_name].features:
            raise UserError(
                f"{name} is the name of a number from Inception features: with features "
                f"{features!r} ask for {other_name!r}"
            )
        known = [other for other, metric in METRICS.items() if features in metric.features]
        raise UserError(
            f"there is no metric {name!r} of features {features!r}; there are {', '.join(known)}"
        )


def check_count(asked: Sequence[str], count: int, *, allow_small: bool) -> None:
    """Refuse too few images, for computing a metric or for comparing it with published numbers.

    count: Number of generated images. allow_small: Accept fewer images than papers use.
    Raises UserError.
    """
    for name in asked:
        metric = METRICS[name]
        # No flag helps here: the number does not exist for so few images.
        if count < metric.fewest:
            raise UserError(
                f"{name} needs at least {metric.fewest:,} images, there are {count:,}: draw more, "
                "or name other metrics, with `metrics`"
            )
        if count < metric.published_count and not allow_small:
            raise UserError(
                f"published numbers of {name} are of {metric.published_count:,} images, there are "
                f"{count:,}: `allow_small` computes one of that name, {name}_{count}"
            )


def reads(asked: Sequence[str], *kinds: str) -> bool:
    """Return whether any of the metrics reads one of these kinds; see `Metric.reads`."""
    return any(METRICS[name].reads in kinds for name in asked)


def needs_reference(asked: Sequence[str]) -> bool:
    """Return whether any of the metrics compares generated images with real ones."""
    return reads(asked, "moments", "vectors")


def needs_features(asked: Sequence[str]) -> bool:
    """Return whether any of the metrics needs a feature network.

    The modes alone need none: their labels come from a classifier of digits.
    """
    return reads(asked, "moments", "vectors", "logits")


def value_names(asked: Sequence[str], features: str, count: int) -> dict[str, str]:
    """Return the full name of every number by its plain one.

    The full name says which features and how many images it is of, wherever these are not the
    ones of published numbers: {"frechet": "frechet_pixels_1000"}.
    """
    names = {}
    for name in asked:
        metric = METRICS[name]
        # Modes are counted by the digit classifier, so that the features do not change them.
        of = "" if features == "inception" or metric.reads == "labels" else f"_{features}"
        small = "" if used_count(name, count) == metric.published_count else f"_{count}"
        names |= {value: f"{value}{of}{small}" for value in metric.values}
    return names


def used_count(name: str, count: int) -> int:
    """Return how many of `count` images the metric takes: modes take the first 26,000."""
    return min(count, PUBLISHED_COUNT_OF_MODES) if name == "modes" else count


def is_better(name: str, value: float, best: float | None) -> bool:
    """Return whether a number is better than the best one so far.

    name: The plain name of the number. best: None if there is no number yet.
    """
    if best is None:
        return True
    return value > best if name in HIGHER_IS_BETTER else value < best
