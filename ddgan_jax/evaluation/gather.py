"""Gather from a stream of images everything that metrics read of them."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8

from ddgan_jax.errors import NotFiniteError
from ddgan_jax.evaluation.features import FeatureNetwork, Features
from ddgan_jax.metrics import statistics
from ddgan_jax.metrics.statistics import FeatureStatistics
from ddgan_jax.progress import Display

Images = UInt8[np.ndarray, "n h w c"]
Label = Callable[[Images], Int[np.ndarray, " n"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Gathered:
    """What metrics read of a set of images.

    Attributes:
      stats: Statistics of the features of all images.
      vectors: The features of the first images, of as many as were to be kept.
      logits: Class scores of all images, or None if they were not asked for.
      labels: Labels of all images, or None if nobody labels them.
    """

    stats: FeatureStatistics
    vectors: Float[np.ndarray, "kept d"]
    logits: Float[np.ndarray, "n classes"] | None = None
    labels: Int[np.ndarray, " n"] | None = None


def gather(
    chunks: Iterable[Images],
    network: FeatureNetwork,
    *,
    total: int,
    keep: int,
    logits: bool = False,
    label: Label | None = None,
    title: str = "evaluating",
) -> Gathered:
    """Extract the features of images that come in chunks of any size, at least one image in all.

    Images are dropped after each batch, so that memory grows with their number only by the vectors,
    logits and labels that are asked for.

    Args:
      chunks: The images.
      network: Extracts the features.
      total: Number of images, for the progress on a terminal.
      keep: Number of feature vectors to keep beside the statistics.
      logits: Keep the class scores too, of a network that has them.
      label: Labels images; the labels are kept.
      title: Says on a terminal what is done.

    Raises NotFiniteError for features that are not finite.
    """
    stats: FeatureStatistics | None = None
    vectors, scores, labels = [], [], []
    # The first batch may wait for the compiler.
    with Display(total, title=title, unit="images", phase=title) as display:
        for batch in display.counted(in_batches(chunks, network.batch_size)):
            found = network.extract(batch)
            _check_finite(found, network)
            # The width of the features shows with the first batch.
            before = statistics.empty(found.vectors.shape[1]) if stats is None else stats
            stats = statistics.add(before, found.vectors)
            # The last batch is cut, so that the number kept does not depend on the size of a batch.
            if before.count < keep:
                vectors.append(found.vectors[: keep - before.count])
            if logits:
                scores.append(found.logits)
            if label is not None:
                labels.append(label(batch))
    if stats is None:
        raise ValueError("there are no images")
    return Gathered(
        stats,
        # Metrics of moments keep no vectors, and a file of statistics has an array of them all the
        # same.
        np.concatenate(vectors) if vectors else np.zeros((0, len(stats.total)), np.float32),
        np.concatenate(scores) if logits else None,
        np.concatenate(labels) if label is not None else None,
    )


def in_batches(chunks: Iterable[Images], batch_size: int) -> Iterator[Images]:
    """Yield the same images in batches of one size, of which only the last may be smaller."""
    waiting: list[np.ndarray] = []
    count = 0
    for chunk in chunks:
        waiting.append(chunk)
        count += len(chunk)
        if count >= batch_size:
            joined = np.concatenate(waiting)
            # Whole batches alone: each smaller one would be filled up with copies and wasted work.
            whole = count - count % batch_size
            for start in range(0, whole, batch_size):
                yield joined[start : start + batch_size]
            waiting, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)


def _check_finite(found: Features, network: FeatureNetwork) -> None:
    # The check of every batch ends the work at the first damage, and not after all images.
    for array in found:
        if array is not None and not np.isfinite(array).all():
            raise NotFiniteError(
                f"the {network.name} features of some images are not finite, so that no number "
                "could come of them: the network's weights are damaged"
            )
