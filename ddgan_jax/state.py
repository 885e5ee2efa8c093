"""Define the values that travel through the program, and the words for their shapes.

Shapes are written as in jaxtyping, with these letters:

    b examples on one device     h w pixels     c channels     t denoising steps     n images

Images are channels-last. uint8 images lie in [0, 255], float images in [-1, 1].
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import jax
import numpy as np
from jaxtyping import Float, Int, Key

if TYPE_CHECKING:
    AnyArray = jax.Array
else:
    # The maths takes arrays of devices, tracers, and arrays of the host. To a type checker they are
    # all JAX's, since numpy's lack a few methods and a union of both would lack them too.
    AnyArray = jax.Array | np.ndarray

PyTree = Any
# A nested dict of float arrays, the parameters of one network.
Params = PyTree
# Scalars by their names in the logs.
Metrics = dict[str, jax.Array]
# (b, h, w, c); or points, which are images of one pixel.
Images = Float[AnyArray, "b *shape c"]
# The class of each example, 0 in data sets without classes.
Labels = Int[AnyArray, " b"] | None
# One random key for each example.
Keys = Key[jax.Array, " b"]


class Batch(TypedDict):
    """The examples that a data pipeline hands to the train step, along the leading axis.

    image: uint8 (B, H, W, C), or float32 points (B, 1, 1, C) of the toy sets. label: int32 (B,), 0
    for sets without labels. index: int32 (B,), the example's position in the global batch,
    0 .. batch_size - 1. Random draws are keyed by it, which makes results independent of how
    devices split the batch.
    """

    image: AnyArray
    label: AnyArray
    index: AnyArray


class Judgement(NamedTuple):
    """The output of a discriminator for a batch.

    logits: (B,), or (B, H, W, K) per pixel; high where it takes an image for real. regression: the
    head C of auxiliary forward diffusion, of the images' shape; denoised: the head R, likewise. A
    discriminator without such a head has None there.
    """

    logits: jax.Array
    regression: jax.Array | None = None
    denoised: jax.Array | None = None


class GeneratorState(NamedTuple):
    """Parameters, their exponential moving average (used for sampling), optimiser state."""

    params: Params
    ema_params: Params
    opt_state: PyTree


class DiscriminatorState(NamedTuple):
    """Parameters and optimiser state."""

    params: Params
    opt_state: PyTree


class TrainState(NamedTuple):
    """Everything that a run needs to go on. It has no random key: draws follow seed and step.

    step: int32 scalar, the number of finished train steps.
    """

    step: jax.Array
    generator: GeneratorState
    discriminator: DiscriminatorState


def num_parameters(params: Params) -> int:
    """Return the number of scalars in a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def may_be_sharded(state: TrainState) -> TrainState:
    """Return which arrays of a state may be divided among devices, as a tree of booleans.

    These are Adam's moments and the moving average. A step updates each of their numbers from the
    gradient and the parameter in the same place, so that a device can keep a part of them (ZeRO,
    stage 1; Rajbhandari et al. 2020).
    """
    # Raw parameters stay whole on every device, because each forward pass reads all of them.
    no, yes = (jax.tree.map(lambda _, answer=answer: answer, state) for answer in (False, True))
    return no._replace(
        generator=yes.generator._replace(params=no.generator.params),
        discriminator=yes.discriminator._replace(params=no.discriminator.params),
    )
