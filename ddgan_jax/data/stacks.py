"""Stack gray digits three at a time as the colours of one image: 1,000 modes to cover.

"stacked_mnist" is the customary set, of MNIST. "stacked_digits" is its small sister, of the 8 x 8
digits that come with the program.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ddgan_jax.data.datasets import ArrayDataset, DatasetInfo, StackedDataset
from ddgan_jax.data.order import STACK, permutation

CHANNELS = 3
NUM_CLASSES = 1000


class Stack(NamedTuple):
    """How a set of stacks is made.

    gray: The set of single digits. gray_size: Their width and height, pixels. padding: Pixels of
    zeros around them. passes: How often each channel goes through all of them.
    """

    gray: str
    gray_size: int
    padding: int
    passes: int

    @property
    def image_size(self) -> int:
        """Return the width and height of the stacks, pixels."""
        return self.gray_size + 2 * self.padding


SETS: Mapping[str, Stack] = {
    "stacked_mnist": Stack("mnist", 28, padding=2, passes=2),
    # The 1,797 digits give 118,602 triples, about as many as MNIST's.
    "stacked_digits": Stack("digits", 8, padding=0, passes=66),
}


def stacked(name: str, digits: ArrayDataset) -> StackedDataset:
    """Return triples of `digits`, images of one channel, as the set `name` of SETS has them.

    Each channel goes through all digits in a random order, then in another one, and so on. The
    orders have the seed 0 whatever the run's seed, so that the set is the same in every run.
    """
    stack, count = SETS[name], digits.info.num_examples
    members = [
        np.concatenate([permutation(0, (STACK, channel, p), count) for p in range(stack.passes)])
        for channel in range(CHANNELS)
    ]
    border = (stack.padding, stack.padding)
    return StackedDataset(
        DatasetInfo(name, stack.passes * count, stack.image_size, CHANNELS, NUM_CLASSES),
        # The digits have a black background, so that zeros continue it.
        np.pad(digits.images[..., 0], ((0, 0), border, border)),
        digits.labels,
        np.stack(members),
    )
