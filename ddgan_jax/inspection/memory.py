"""Estimate the memory that training takes on a device, from shapes alone."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import build, randomness
from ddgan_jax.inspection.costs import abstract_inputs
from ddgan_jax.state import Params, PyTree, TrainState, may_be_sharded


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a device, before the compiler fuses or drops anything: an upper estimate.

    Attributes:
      state: Parameters, their average and Adam's moments, of both networks.
      divided: What of the state train.shard_optimizer divides among the devices; 0 without it.
      gradients: The gradients of the larger network. The updates follow each other, so that those
        of both never exist at the same time.
      activations: What the larger backward pass, with R1 if any, keeps for one image.
    """

    state: int
    divided: int
    gradients: int
    activations: int

    def of_device(self, images: int, devices: int) -> int:
        """Return the bytes of one of the devices. images: those that it works on at once."""
        whole = self.state - self.divided
        return whole + -(-self.divided // devices) + self.gradients + images * self.activations


@randomness.reproducible()
def estimate(config: ConfigDict) -> Memory:
    """Return the memory that training the config takes. Takes seconds, and needs no device."""
    state = jax.eval_shape(lambda: build.initial_state(config, randomness.run_key(0)))
    return Memory(
        state=_bytes(state),
        divided=_divided(state) if config.train.shard_optimizer else 0,
        gradients=max(_bytes(state.generator.params), _bytes(state.discriminator.params)),
        activations=activation_bytes(config, state),
    )


def _divided(state: TrainState) -> int:
    # The leaves of both trees come in the same order.
    marked = jax.tree.leaves(may_be_sharded(state))
    pairs = zip(jax.tree.leaves(state), marked, strict=True)
    return sum(_bytes(leaf) for leaf, may in pairs if may)


def activation_bytes(config: ConfigDict, state: TrainState) -> int:
    """Return the bytes that the larger backward pass (with R1 if any) keeps for one image."""
    # The difference of two batches leaves out what a backward pass keeps once, whatever the batch,
    # such as the parameters in the compute dtype.
    # Both are whole groups of the minibatch standard deviation.
    few, more = 4, 8
    kept = [_kept_bytes(config, state, batch_size) for batch_size in (few, more)]
    return max(b - a for a, b in zip(*kept, strict=True)) // (more - few)


def _kept_bytes(config: ConfigDict, state: TrainState, batch_size: int) -> tuple[int, int]:
    """Return what the generator's and the discriminator's backward pass keep, for a batch."""
    objective = build.objective(config)
    inputs = abstract_inputs(config, batch_size)
    # Only shapes are needed, and not a single number is drawn.
    keys = jax.eval_shape(lambda: jax.random.split(randomness.run_key(0), batch_size))
    draws = jax.eval_shape(lambda keys: objective.draw(keys, inputs["x"].shape[1:]), keys)
    examples = inputs["x"], inputs["labels"], draws
    generator, discriminator = state.generator.params, state.discriminator.params
    r1 = config.objective.r1_gamma > 0

    def residuals(loss: Callable[..., Any], *arguments: Any) -> int:
        def backward(params: Params, *others: Any) -> Any:
            return jax.vjp(lambda p: loss(p, *others), params, has_aux=True)[1]

        # The backward function is a pytree: its leaves are the arrays that the forward pass keeps.
        return _bytes(jax.eval_shape(backward, *arguments))

    return (
        residuals(objective.generator_loss, generator, discriminator, *examples),
        residuals(
            lambda *arguments: objective.discriminator_loss(*arguments, r1=r1),
            discriminator,
            generator,
            *examples,
        ),
    )


def _bytes(tree: PyTree) -> int:
    return sum(
        math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
        # The size of a random key depends on the generator, and is nothing beside the rest.
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
