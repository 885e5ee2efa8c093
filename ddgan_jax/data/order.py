"""Tell which examples a train step reads, as a pure function of the seed and the step.

The examples form one endless stream, epoch after epoch, each epoch in its own random order. Train
step s reads the stream's positions s * batch_size ... (s + 1) * batch_size - 1. Nothing is
remembered between steps: any process computes its own shard of any batch, and a run resumes at any
step by asking for it.
"""

import functools

import numpy as np

# The purpose of a permutation is part of its key, so that no two purposes ever share an order.
EPOCH = 0
STACK = 1
# The order from which a classifier's training takes the images that it holds out.
HELD_OUT_ORDER = 2
# The order of the real images that generated ones are compared with.
REFERENCE_ORDER = 3
# The order from which a split gives the examples that no run trains on.
HOLDOUT_ORDER = 4


@functools.lru_cache(maxsize=8)
def permutation(seed: int, key: tuple[int, ...], length: int) -> np.ndarray:
    """Return a random order of 0 .. length - 1, read-only int64, the same on every machine.

    seed: >= 0. key: The purpose of the order, ints in [0, 2**32).
    """
    # Sorting the raw output of a counter-based generator is slower than `Generator.permutation`,
    # which NumPy may change. The raw output is promised to stay: a run that resumes after an
    # upgrade reads the same order.
    bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=key))
    order = np.argsort(bits.random_raw(length), kind="stable")
    order.flags.writeable = False
    return order


def example_ids(
    seed: int,
    step: int,
    batch_size: int,
    num_examples: int,
    positions: np.ndarray | None = None,
) -> np.ndarray:
    """Return the example ids at some positions of the global batch of one train step.

    Args:
      seed: >= 0, chooses the order.
      step: train step, >= 0.
      batch_size: examples in the global batch, over all processes; may exceed num_examples.
      num_examples: size of the set, >= 1.
      positions: int (n,), positions in the global batch, in [0, batch_size); None: all of them.

    Returns:
      int64 (n,), in [0, num_examples). Every example comes exactly once per epoch.
    """
    if positions is None:
        positions = np.arange(batch_size)
    epochs, places = np.divmod(step * batch_size + positions.astype(np.int64), num_examples)
    ids = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        ids[here] = permutation(seed, (EPOCH, int(epoch)), num_examples)[places[here]]
    return ids
