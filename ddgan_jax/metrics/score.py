"""Compute the Inception Score (Salimans et al. 2016): classes sure for one image, many for all."""

import numpy as np
from jaxtyping import Float

from ddgan_jax.errors import UserError
from ddgan_jax.metrics.finite import require_finite


def inception_score(
    logits: Float[np.ndarray, "n classes"], splits: int = 10
) -> tuple[float, float]:
    """Return mean and standard deviation over splits of exp E_x KL(p(y | x) || p(y)).

    p(y | x) is the softmax of the logits in float64, p(y) its mean over the split. Split i holds
    the rows i n // splits to (i + 1) n // splits - 1: shuffle images that come in an order, such as
    that of their classes. The published numbers take all 1008 logits without their bias, and 10
    splits; fewer splits read higher. The standard deviation is that of the splits alone (divided by
    their number).

    Raises UserError for more splits than images, and NotFiniteError.
    """
    logits = np.asarray(logits)
    require_finite(logits=logits)
    count = len(logits)
    if not 1 <= splits <= count:
        raise UserError(f"an Inception Score of {count} images cannot have {splits} splits")
    # Split sizes may differ by one: no image is left out.
    bounds = [i * count // splits for i in range(splits + 1)]
    scores = [_score(logits[start:end]) for start, end in zip(bounds, bounds[1:], strict=False)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: np.ndarray) -> float:
    logits = logits.astype(np.float64)
    # The largest logit is subtracted, since exponentials of large ones overflow; the softmax stays.
    shifted = logits - logits.max(1, keepdims=True)
    # The logarithm is taken before the exponential: a probability may underflow to 0.
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    p = np.exp(log_p)
    marginal = p.mean(0)
    # p(y | x) ln p(y) summed over images is n p(y) ln p(y), and 0 ln 0 = 0.
    log_marginal = np.log(np.where(marginal > 0, marginal, 1))
    return float(np.exp((p * log_p).sum(1).mean() - (marginal * log_marginal).sum()))
