"""Call a compiled function on any number of examples, a fixed number at a time."""

import operator
from collections.abc import Callable

import jax
import numpy as np

from ddgan_jax.state import PyTree


def call_in_batches(
    call: Callable[[np.ndarray], PyTree], examples: np.ndarray, batch_size: int
) -> PyTree:
    """Return call(examples) on the host, for N >= 1 examples, `batch_size` at a time.

    The last batch is filled up with repetitions, whose results are thrown away. call: made by
    `map_examples`, with its parameters. batch_size: a multiple of its number of devices.
    """
    parts = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        results = jax.device_get(call(np.resize(batch, (batch_size, *batch.shape[1:]))))
        kept = slice(len(batch))
        parts.append(jax.tree.map(operator.itemgetter(kept), results))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
