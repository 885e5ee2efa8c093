"""The values that travel through the program, and the words used for their shapes.

B: examples on one device, H and W: pixels, C: image channels, L: latent size, T: denoising steps.
Images are channels-last. uint8 images lie in [0, 255], float images in [-1, 1].
"""

from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

PyTree = Any
Params = PyTree  # nested dict of float arrays, one network


class Batch(TypedDict):
    """What the data pipeline hands to the train step, along the leading axis one example each.

    image: uint8 (B, H, W, C), or float32 points (B, 1, 1, C) of the toy sets. label: int32 (B,), 0
    for sets without labels. index: int32 (B,), the example's position in the global batch,
    0 .. batch_size - 1. Random draws are keyed by it, which makes results independent of how
    devices split the batch.
    """

    image: np.ndarray | jax.Array
    label: np.ndarray | jax.Array
    index: np.ndarray | jax.Array


class Judgement(NamedTuple):
    """What a discriminator says of a batch.

    logits: (B,), or (B, H, W, K) per pixel; high for what it takes for real. regression: the head C
    of auxiliary forward diffusion, like the images; denoised: the head R, likewise; None: no head.
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
    """Everything a run needs to go on. No random key: draws are a function of seed and step.

    step: int32 scalar, train steps done so far.
    """

    step: jax.Array
    generator: GeneratorState
    discriminator: DiscriminatorState
