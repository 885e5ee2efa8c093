"""Define the InceptionV3 of the Frechet Inception Distance, for evaluation alone.

It is the network of 2015 that Heusel et al. score with, not the one of torchvision: 1008 classes,
average pools that divide by the number of real cells, and a maximum pool in the last block. Its
batch normalisations are folded into the convolutions (`interop.inception`), so that a unit is
relu(conv(x) + bias).

Module names are those of the published state dict; branches are joined in the order of the code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

INPUT_SIZE = 299
NUM_CLASSES = 1008
# Accelerators multiply float32 in TF32 or bfloat16 unless told not to: 1e-3 of every feature.
PRECISION = jax.lax.Precision.HIGHEST


class Unit(nn.Module):
    """relu(conv(x) + bias). "SAME" is only asked for at stride 1, where it is symmetric."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # Not `nn.Conv`: so the kernel and the bias lie directly under the published name of the
        # unit.
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=PRECISION,
        )
        return nn.relu(x + bias)


def halving(features: int, name: str) -> Unit:
    """Return a 3x3 unit of stride 2 without padding."""
    return Unit(features, (3, 3), 2, "VALID", name=name)


def average_pool(x: jax.Array) -> jax.Array:
    """Return means over 3x3 cells; at the border over those that exist."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def max_pool(x: jax.Array) -> jax.Array:
    """Return maxima over 3x3 cells."""
    return nn.max_pool(x, (3, 3), padding="SAME")


def halving_max_pool(x: jax.Array) -> jax.Array:
    """Return maxima over 3x3 cells, stride 2, without padding."""
    return nn.max_pool(x, (3, 3), strides=(2, 2))


def join(*branches: jax.Array) -> jax.Array:
    """Concatenate branches along the channels."""
    return jnp.concatenate(branches, axis=-1)


class MixedA(nn.Module):
    """35 x 35: branches of 1x1, 5x5, two 3x3, and a pool."""

    pool_features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = Unit(64, name="branch1x1")(x)
        five = Unit(48, name="branch5x5_1")(x)
        five = Unit(64, (5, 5), name="branch5x5_2")(five)
        double = Unit(64, name="branch3x3dbl_1")(x)
        double = Unit(96, (3, 3), name="branch3x3dbl_2")(double)
        double = Unit(96, (3, 3), name="branch3x3dbl_3")(double)
        pool = Unit(self.pool_features, name="branch_pool")(average_pool(x))
        return join(one, five, double, pool)


class MixedB(nn.Module):
    """35 x 35 to 17 x 17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = halving(384, name="branch3x3")(x)
        double = Unit(64, name="branch3x3dbl_1")(x)
        double = Unit(96, (3, 3), name="branch3x3dbl_2")(double)
        double = halving(96, name="branch3x3dbl_3")(double)
        return join(three, double, halving_max_pool(x))


class MixedC(nn.Module):
    """17 x 17: 7x7 convolutions as 1x7 and 7x1, once and twice."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = Unit(192, name="branch1x1")(x)
        seven = Unit(self.hidden, name="branch7x7_1")(x)
        seven = Unit(self.hidden, (1, 7), name="branch7x7_2")(seven)
        seven = Unit(192, (7, 1), name="branch7x7_3")(seven)
        double = Unit(self.hidden, name="branch7x7dbl_1")(x)
        double = Unit(self.hidden, (7, 1), name="branch7x7dbl_2")(double)
        double = Unit(self.hidden, (1, 7), name="branch7x7dbl_3")(double)
        double = Unit(self.hidden, (7, 1), name="branch7x7dbl_4")(double)
        double = Unit(192, (1, 7), name="branch7x7dbl_5")(double)
        pool = Unit(192, name="branch_pool")(average_pool(x))
        return join(one, seven, double, pool)


class MixedD(nn.Module):
    """17 x 17 to 8 x 8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = Unit(192, name="branch3x3_1")(x)
        three = halving(320, name="branch3x3_2")(three)
        seven = Unit(192, name="branch7x7x3_1")(x)
        seven = Unit(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = Unit(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = halving(192, name="branch7x7x3_4")(seven)
        return join(three, seven, halving_max_pool(x))


class MixedE(nn.Module):
    """8 x 8: branches that split into 1x3 and 3x1. The two blocks of it differ in their pool."""

    maximum: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = Unit(320, name="branch1x1")(x)
        three = Unit(384, name="branch3x3_1")(x)
        three_a = Unit(384, (1, 3), name="branch3x3_2a")(three)
        three_b = Unit(384, (3, 1), name="branch3x3_2b")(three)
        double = Unit(448, name="branch3x3dbl_1")(x)
        double = Unit(384, (3, 3), name="branch3x3dbl_2")(double)
        double_a = Unit(384, (1, 3), name="branch3x3dbl_3a")(double)
        double_b = Unit(384, (3, 1), name="branch3x3dbl_3b")(double)
        pool = Unit(192, name="branch_pool")(max_pool(x) if self.maximum else average_pool(x))
        return join(one, three_a, three_b, double_a, double_b, pool)


class InceptionV3(nn.Module):
    """Images to features and class scores.

    x: float (B, 299, 299, 3), about [-1, 1]. Returns pool3 (B, 2048), the mean over the last map,
    and the logits (B, 1008) without their bias, which the Inception Score leaves out.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # 299 pixels to 35: the stem.
        x = halving(32, name="Conv2d_1a_3x3")(x)
        x = Unit(32, (3, 3), padding="VALID", name="Conv2d_2a_3x3")(x)
        x = Unit(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = halving_max_pool(x)
        x = Unit(80, name="Conv2d_3b_1x1")(x)
        x = Unit(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3")(x)
        x = halving_max_pool(x)
        # 35 x 35, then 17 x 17, then 8 x 8.
        x = MixedA(32, name="Mixed_5b")(x)
        x = MixedA(64, name="Mixed_5c")(x)
        x = MixedA(64, name="Mixed_5d")(x)
        x = MixedB(name="Mixed_6a")(x)
        x = MixedC(128, name="Mixed_6b")(x)
        x = MixedC(160, name="Mixed_6c")(x)
        x = MixedC(160, name="Mixed_6d")(x)
        x = MixedC(192, name="Mixed_6e")(x)
        x = MixedD(name="Mixed_7a")(x)
        x = MixedE(maximum=False, name="Mixed_7b")(x)
        # A maximum pool in the last block is a peculiarity of the network of 2015, and part of the
        # score.
        x = MixedE(maximum=True, name="Mixed_7c")(x)
        # The published FID features are this mean, before the classes.
        pool3 = x.mean((1, 2))
        classify = nn.Dense(NUM_CLASSES, use_bias=False, precision=PRECISION, name="fc")
        return pool3, classify(pool3)
