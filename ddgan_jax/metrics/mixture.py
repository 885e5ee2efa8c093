"""Count the modes of a mixture of Gaussians in samples, and measure how sharp they are.

The Frechet distance of the raw coordinates sees mean and covariance alone: a single broad Gaussian
with the right moments passes for 25 sharp ones. These numbers tell them apart.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ddgan_jax.metrics.modes import kl_to_uniform

# Fraction of 1 / (number of modes) with which a mode counts as covered.
FAIR_SHARE = 0.05


class MixtureStatistics(NamedTuple):
    """The numbers of `mixture_statistics`."""

    modes_any: int
    modes_covered: int
    high_quality_share: float
    kl_to_uniform: float
    within_mode_std: float


def mixture_statistics(
    samples: Float[np.ndarray, "n d"], centres: Float[np.ndarray, "modes d"], *, radius: float = 1.0
) -> MixtureStatistics:
    """Return how samples of any float dtype spread over the modes at `centres`.

    A sample belongs to the nearest centre; it is of high quality within `radius` of it (1.0 is
    three standard deviations of the 25 Gaussians of SIDDM).

    Returns:
      modes_any: modes with a high-quality sample.
      modes_covered: modes whose high-quality samples are at least 5 % of N / M, their fair share.
      high_quality_share: high-quality samples / N.
      kl_to_uniform: KL(p || uniform) in nats, p the share of all samples in each mode; 0 to ln M.
      within_mode_std: standard deviation, per coordinate, of high-quality samples about the mean
        of their mode; NaN without any.

    Raises:
      ValueError: samples that are not finite.
    """
    samples = np.asarray(samples, np.float64)
    if not np.isfinite(samples).all():
        raise ValueError("the samples hold NaN or infinity")
    num_modes = len(centres)
    # One centre at a time: all differences at once would take many times the memory of the samples.
    squares = np.stack([np.square(samples - centre).sum(1) for centre in centres])
    mode = squares.argmin(0)
    good = squares.min(0) <= radius**2
    # Samples of low quality have a nearest centre, too, and would cover modes that are not drawn.
    good_counts = np.bincount(mode[good], minlength=num_modes)
    return MixtureStatistics(
        modes_any=int((good_counts > 0).sum()),
        modes_covered=int((good_counts * num_modes >= FAIR_SHARE * len(samples)).sum()),
        high_quality_share=float(good.mean()),
        # All samples count here, each for its nearest centre: p must add up to 1.
        kl_to_uniform=kl_to_uniform(np.bincount(mode, minlength=num_modes)),
        within_mode_std=_within_mode_std(samples[good], mode[good], good_counts),
    )


def _within_mode_std(samples: np.ndarray, mode: np.ndarray, counts: np.ndarray) -> float:
    if not len(samples):
        return float("nan")
    sums = np.stack([np.bincount(mode, column, len(counts)) for column in samples.T], axis=1)
    # A mode without samples has the sum 0, and its mean is never read.
    means = sums / np.maximum(counts, 1)[:, None]
    return float(np.sqrt(np.square(samples - means[mode]).mean()))
