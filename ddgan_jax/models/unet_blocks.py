"""Define the blocks of the ADM U-Net: residual blocks and attention, and their layers.

Initial values are torch's: kernels and biases alike are uniform within +-1 / sqrt(fan_in). The
last layer of every residual branch starts at zero, so that a fresh block is its own shortcut.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ddgan_jax.config.shapes import UNET_GROUPS
from ddgan_jax.models.layers import Dropout, Dtype, Initializer, at_least_float32, group_norm
from ddgan_jax.state import AnyArray

_EPSILON = 1e-5


def uniform_fan_in(fan_in: int) -> Initializer:
    """Return a uniform initialiser within +-1 / sqrt(fan_in), of a kernel or of its bias."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def conv3x3(
    x: Float[AnyArray, "b h w c"],
    features: int,
    *,
    name: str,
    dtype: Dtype,
    stride: int = 1,
    zero: bool = False,
) -> Float[jax.Array, "b H W k"]:
    """Convolve 3x3 with zero padding 1: (B, H, W, C) -> (B, H / stride, W / stride, features).

    A layer `name` of the compact module that calls it. zero: kernel and bias start at 0.
    """
    init = nn.initializers.zeros if zero else uniform_fan_in(9 * x.shape[-1])
    # Symmetric padding; "SAME" would shift the windows of an even image by one pixel at stride 2.
    return nn.Conv(
        features, (3, 3), stride, 1, kernel_init=init, bias_init=init, dtype=dtype, name=name
    )(x)


def dense(x: AnyArray, features: int, *, name: str, dtype: Dtype, zero: bool = False) -> jax.Array:
    """Apply a linear layer with a bias to the last axis. name, zero: as for `conv3x3`."""
    init = nn.initializers.zeros if zero else uniform_fan_in(x.shape[-1])
    return nn.Dense(features, kernel_init=init, bias_init=init, dtype=dtype, name=name)(x)


class GroupNorm(nn.Module):
    """Group normalisation, a learned scale and bias per channel, and then a modulation.

    modulation: (scale, shift), (B, 1, 1, C) each, for norm(x) (1 + scale) + shift; or None.
    """

    @nn.compact
    def __call__(
        self, x: AnyArray, modulation: tuple[jax.Array, jax.Array] | None = None
    ) -> jax.Array:
        shape = (x.shape[-1],)
        gain = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if modulation is not None:
            scale, shift = map(at_least_float32, modulation)
            # Two affine maps in a row are one, with these coefficients.
            gain, bias = gain * (1 + scale), bias * (1 + scale) + shift
        return group_norm(x, gain, bias, UNET_GROUPS, _EPSILON).astype(x.dtype)


class ResBlock(nn.Module):
    """Residual block that the embedding of time and class modulates, and that may resample.

    resampling, such as `resample.downsample_mean`, acts on the shortcut, and on the branch before
    its first convolution.
    """

    features: int
    dropout: float
    # The embedding scales and shifts the second norm; if False, it is added before.
    scale_shift_norm: bool
    dtype: Dtype
    resampling: Callable[[jax.Array], jax.Array] | None = None

    @nn.compact
    def __call__(
        self, x: AnyArray, embedding: AnyArray, dropout_keys: jax.Array | None
    ) -> jax.Array:
        """Return the output (B, H', W', features). embedding: (B, E), after its activation."""
        h = nn.silu(GroupNorm(name="norm_0")(x))
        if self.resampling is not None:
            h, x = self.resampling(h), self.resampling(x)
        h = conv3x3(h, self.features, name="conv_0", dtype=self.dtype)
        width = 2 * self.features if self.scale_shift_norm else self.features
        embedded = dense(embedding, width, name="embedding", dtype=self.dtype)[:, None, None, :]
        norm = GroupNorm(name="norm_1")
        if self.scale_shift_norm:
            # One layer gives both, the scales first.
            scale, shift = jnp.split(embedded, 2, axis=-1)
            h = norm(h, (scale, shift))
        else:
            h = norm(h + embedded)
        h = Dropout(self.dropout, name="dropout")(nn.silu(h), dropout_keys)
        # Zeros make a fresh block its own shortcut.
        h = conv3x3(h, self.features, name="conv_1", dtype=self.dtype, zero=True)
        if x.shape[-1] != self.features:
            # A 1x1 convolution is a dense layer on the channels.
            x = dense(x, self.features, name="shortcut", dtype=self.dtype)
        return x + h


class Attention(nn.Module):
    """Multi-head self-attention over all pixels with a residual connection. (B, H, W, C).

    The columns of `qkv` are all queries, all keys, all values, each of them head after head.
    """

    num_heads: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: AnyArray) -> jax.Array:
        b, h, w, c = x.shape
        normed = GroupNorm(name="norm")(x).reshape(b, h * w, c)
        qkv = dense(normed, 3 * c, name="qkv", dtype=self.dtype)
        qkv = qkv.reshape(b, h * w, 3, self.num_heads, c // self.num_heads)
        attended = attend(*jnp.unstack(qkv, axis=2)).reshape(b, h * w, c)
        # Zeros make a fresh layer the identity.
        out = dense(attended, c, name="output", dtype=self.dtype, zero=True)
        return x + out.reshape(b, h, w, c)


def attend(query: AnyArray, key: AnyArray, value: AnyArray) -> jax.Array:
    """Return softmax(q k^T / sqrt(D)) v for each head, the softmax in float32 (or wider).

    All of one dtype, (B, pixels, heads, D).
    """
    if query.dtype != jnp.float64:
        return jax.nn.dot_product_attention(query, key, value)
    # The library's softmax is in float32, whatever it is given.
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), value)
