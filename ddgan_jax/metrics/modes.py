"""Count the modes of generated images by the labels of a classifier: stacked digits have 1000."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ddgan_jax.errors import UserError


class ModeStatistics(NamedTuple):
    """The numbers of `mode_statistics`."""

    modes: int
    kl: float


def mode_statistics(labels: Int[np.ndarray, " n"], num_modes: int) -> ModeStatistics:
    """Return how generated images spread over K = num_modes classes, equally likely in the data.

    labels: The classifier's, in 0 .. K - 1; for stacked digits 100 R + 10 G + B.

    Returns:
      modes: labels seen at least once.
      kl: KL(generated || uniform) in nats. A perfect sampler's is not 0 but about (K - 1) / (2 N):
        0.019 for the customary 26,000 samples of stacked digits.

    Raises:
      UserError: no labels, or labels outside 0 .. K - 1.
    """
    labels = np.asarray(labels)
    if not labels.size or labels.min() < 0 or labels.max() >= num_modes:
        raise UserError(f"mode statistics need labels in 0 .. {num_modes - 1}, at least one")
    # minlength counts the classes behind the largest label, too, which no image may have.
    counts = np.bincount(labels, minlength=num_modes)
    return ModeStatistics(int((counts > 0).sum()), kl_to_uniform(counts))


def kl_to_uniform(counts: Int[np.ndarray, " modes"]) -> float:
    """Return KL(p || uniform) = sum_i p_i ln(K p_i) in nats, p = counts / their sum."""
    # 0 ln 0 = 0: classes without an image add nothing.
    p = counts[counts > 0] / counts.sum()
    return float((p * np.log(len(counts) * p)).sum())
