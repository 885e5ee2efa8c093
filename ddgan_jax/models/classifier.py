"""Define a small classifier with features that stand in for Inception's on any labelled set.

Whatever the size of the images, a first convolution leaves about 16 x 16 places, so that training
takes minutes on a CPU for any of them.
"""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, UInt8

from ddgan_jax import pixels
from ddgan_jax.state import AnyArray, Params

NUM_FEATURES = 128
# The first convolution leaves about so many places in a row.
SIDE = 16
# Features should not depend on the accelerator; see models.inception.
PRECISION = jax.lax.Precision.HIGHEST


class Block(nn.Module):
    """A convolution, normalised in groups of 8 channels, and a GELU."""

    features: int
    kernel: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        sides, strides = (self.kernel, self.kernel), (self.stride, self.stride)
        x = nn.Conv(self.features, sides, strides, precision=PRECISION, name="conv")(x)
        return nn.gelu(nn.GroupNorm(num_groups=None, group_size=8, name="norm")(x))


class Classifier(nn.Module):
    """Images to features and class scores.

    x: float (B, H, W, C), [-1, 1]. Returns features (B, 128) and logits (B, num_classes).
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        stride = max(1, round(min(x.shape[1:3]) / SIDE))
        x = Block(32, stride + 2, stride, name="first")(x)
        x = Block(64, stride=2, name="second")(x)
        x = Block(128, stride=2, name="third")(x)
        x = x.reshape(len(x), -1)
        features = nn.gelu(nn.Dense(NUM_FEATURES, precision=PRECISION, name="features")(x))
        return features, nn.Dense(self.num_classes, precision=PRECISION, name="logits")(features)


def init_params(key: jax.Array, shape: tuple[int, int, int], num_classes: int) -> Params:
    """Return fresh float32 parameters for images of the shape (H, W, C)."""
    return Classifier(num_classes).init(key, jnp.zeros((1, *shape)))["params"]


def classify(
    params: Params, images: UInt8[AnyArray, "b h w c"]
) -> tuple[Float[jax.Array, "b 128"], Float[jax.Array, "b classes"]]:
    """Return features and logits of uint8 images."""
    # The parameters say how many classes there are, so that no caller has to.
    num_classes = params["logits"]["bias"].shape[0]
    x = pixels.to_float(images, jnp.result_type(float))
    return cast(tuple, Classifier(num_classes).apply({"params": params}, x))
