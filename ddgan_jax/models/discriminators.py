"""Define DDGAN's time-conditional discriminators: logit = D(x_t, t, x_{t+1}).

Xiao et al. 2022. "small" serves images of 8 to 64 pixels (five 3x3 levels, H / 8 at the end),
"large" those from 64 pixels on (H / 64). Both see x_t and x_{t+1} as channels of one image, have
no normalisation, and end in a minibatch standard deviation (Karras et al. 2018).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Num

from ddgan_jax.config.shapes import CONVOLUTIONAL, STDDEV_GROUP_SIZE
from ddgan_jax.models import layers, resample
from ddgan_jax.models.layers import Conv3x3, Dtype, uniform_fan_out
from ddgan_jax.state import AnyArray

_FIR = (1, 3, 3, 1)


def leaky_relu(x: AnyArray) -> jax.Array:
    """Return x where it is positive, else 0.2 x."""
    return nn.leaky_relu(x, 0.2)


class DownBlock(nn.Module):
    """Residual block that adds the time and may halve the resolution. (B, H, W, C)."""

    features: int
    down: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x: AnyArray, time: AnyArray) -> jax.Array:
        init, dtype = uniform_fan_out, self.dtype
        h = Conv3x3(self.features, init(), dtype, name="conv_0")(leaky_relu(x))
        dense = nn.Dense(self.features, kernel_init=init(), dtype=dtype, name="time")
        h = leaky_relu(h + dense(time)[:, None, None, :])
        if self.down:
            # The branch is shrunk between its convolutions.
            h, x = resample.downsample_fir(h, _FIR), resample.downsample_fir(x, _FIR)
        h = Conv3x3(self.features, init(0.0), dtype, name="conv_1")(h)
        shortcut = nn.Dense(
            self.features, use_bias=False, kernel_init=init(), dtype=dtype, name="shortcut"
        )
        return layers.residual_sum(shortcut(x), h, rescale=True)


def minibatch_stddev(x: AnyArray, groups: str = "spread") -> jax.Array:
    """Return how much images of one group differ: one channel for (B, H, W, C), >= float32.

    The batch is what one device sees at once. A group is up to four examples, "spread" at stride
    B / 4 (example n belongs to group n mod (B / 4)), or "neighbours" (group n // 4): the same for
    any number of devices that gives each a multiple of four. The biased standard deviation over the
    group is averaged over pixels and channels, and every member gets that number as a constant
    channel (B, H, W, 1). Raises ValueError if B is larger than 4 and not divisible by 4.
    """
    b, h, w, c = x.shape
    group = min(b, STDDEV_GROUP_SIZE)
    if b % group:
        raise ValueError(f"minibatch standard deviation: {b} images do not form groups of {group}")
    layouts = {"spread": (0, (group, b // group)), "neighbours": (1, (b // group, group))}
    axis, shape = layouts[groups]
    grouped = layers.at_least_float32(x).reshape(*shape, h, w, c)
    variance = jnp.square(grouped - grouped.mean(axis, keepdims=True)).mean(axis, keepdims=True)
    # Without the small number the root of equal images would have an infinite gradient.
    stddev = jnp.sqrt(variance + 1e-8).mean((2, 3, 4), keepdims=True)
    stddev = jnp.broadcast_to(stddev, (*shape, 1, 1, 1)).reshape(b, 1, 1, 1)
    return jnp.broadcast_to(stddev, (b, h, w, 1))


class Discriminator(nn.Module):
    """Blocks of given widths, minibatch standard deviation, sum over pixels, one logit."""

    base_channels: int
    # Of base_channels, one for each block.
    width_multipliers: Sequence[int]
    # The first block that halves the resolution; all later ones do.
    first_down: int
    # The scale of the last convolution's initialiser.
    final_conv_scale: float
    time_embedding_dim: int
    stddev_groups: str = "spread"
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self,
        x_t: Float[AnyArray, "b h w c"],
        t: Num[AnyArray, " b"],
        x_tp1: Float[AnyArray, "b h w c"],
    ) -> Float[jax.Array, " b"]:
        """Return logits (B,), float32 or wider, of pairs x_t and x_{t+1} (B, H, W, C).

        t: int (B,), the time of x_t as drawn.
        """
        init = uniform_fan_out
        time = layers.sinusoidal_embedding(
            t, self.time_embedding_dim, jnp.promote_types(x_tp1.dtype, jnp.float32)
        )
        for i in range(2):
            time = leaky_relu(
                nn.Dense(
                    self.time_embedding_dim,
                    kernel_init=init(),
                    dtype=self.dtype,
                    name=f"time_dense_{i}",
                )(time)
            )
        # A 1x1 convolution is a dense layer on the channels.
        h = nn.Dense(
            2 * self.base_channels, kernel_init=init(), dtype=self.dtype, name="input_conv"
        )(jnp.concatenate([x_t, x_tp1], axis=-1))
        for i, multiplier in enumerate(self.width_multipliers):
            width = self.base_channels * multiplier
            block = DownBlock(width, i >= self.first_down, self.dtype, name=f"block_{i}")
            h = block(h, time)
        # The statistic is float32 (or wider), and joins the features in their own type.
        h = jnp.concatenate([h, minibatch_stddev(h, self.stddev_groups).astype(h.dtype)], axis=-1)
        width = self.base_channels * self.width_multipliers[-1]
        h = Conv3x3(width, init(self.final_conv_scale), self.dtype, name="output_conv")(h)
        # Sum, not mean, over the pixels; the last layer is never computed in bfloat16.
        pooled = layers.at_least_float32(leaky_relu(h)).sum((1, 2))
        return nn.Dense(1, kernel_init=init(), name="output")(pooled)[:, 0]


def small(
    base_channels: int,
    time_embedding_dim: int,
    num_blocks: int = 0,
    stddev_groups: str = "spread",
    dtype: Dtype = None,
) -> Discriminator:
    """Return the discriminator of 32-pixel images: with all 4 blocks H / 8, needs H >= 8."""
    blocks = CONVOLUTIONAL["small"].first(num_blocks)
    return Discriminator(base_channels, *blocks, 0.0, time_embedding_dim, stddev_groups, dtype)


def large(
    base_channels: int,
    time_embedding_dim: int,
    num_blocks: int = 0,
    stddev_groups: str = "spread",
    dtype: Dtype = None,
) -> Discriminator:
    """Return the discriminator of 256-pixel images: with all 6 blocks H / 64, needs H >= 64."""
    blocks = CONVOLUTIONAL["large"].first(num_blocks)
    return Discriminator(base_channels, *blocks, 1.0, time_embedding_dim, stddev_groups, dtype)
