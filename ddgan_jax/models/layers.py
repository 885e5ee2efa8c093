"""Define the layers that the NCSN++ generator and the discriminators share.

`dtype` in every module is the compute dtype: None follows parameters and inputs (float32, or
float64 under jax_enable_x64), bfloat16 casts both. Parameters are float32, and so are
normalisation statistics and softmax, whatever the compute dtype.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Num

from ddgan_jax.config.shapes import num_groups
from ddgan_jax.state import AnyArray

Dtype = Any
Initializer = Callable[..., jax.Array]

# A scale of 0 stands for 1e-10 in the variance: exact zeros would stop the first gradients.
_SMALLEST_SCALE = 1e-10


def uniform_fan_avg(scale: float = 1.0) -> Initializer:
    """Return a uniform initialiser of variance scale / mean(fan_in, fan_out), of generators."""
    return nn.initializers.variance_scaling(scale or _SMALLEST_SCALE, "fan_avg", "uniform")


def uniform_fan_out(scale: float = 1.0) -> Initializer:
    """Return a uniform initialiser of variance scale / fan_out, of discriminators and styles."""
    return nn.initializers.variance_scaling(scale or _SMALLEST_SCALE, "fan_out", "uniform")


def at_least_float32(x: AnyArray) -> AnyArray:
    """Return x in float32, or as it is if wider; for statistics, softmax and losses."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Conv3x3(nn.Module):
    """3x3 convolution with zero padding 1 and a bias. (B, H, W, C) -> (B, H, W, features)."""

    features: int
    kernel_init: Initializer
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: AnyArray) -> jax.Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv3x3(x, kernel) + bias


def conv3x3(x: AnyArray, kernel: AnyArray) -> jax.Array:
    """Return the convolution of x (B, H, W, C), with zeros around it, and kernel (3, 3, C, D)."""
    if min(x.shape[1:3]) < 3:
        return _conv3x3_of_tiny_map(x, kernel)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def _conv3x3_of_tiny_map(x: AnyArray, kernel: AnyArray) -> jax.Array:
    # XLA exchanges image and kernel where the image is the smaller one, and then has no fast
    # convolution on CPU (measured: 22 times slower than this matrix product at 2 x 2 pixels).
    b, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    patches = jnp.concatenate(windows, axis=-1).reshape(b * h * w, 9 * c)
    return (patches @ kernel.reshape(9 * c, -1)).reshape(b, h, w, -1)


def sinusoidal_embedding(t: Num[AnyArray, " b"], dim: int, dtype: Dtype = jnp.float32) -> jax.Array:
    """Return [sin(t f_k), cos(t f_k)], (B, dim), with f_k = 10000^(-k / (dim/2 - 1)).

    All sines come first; an odd dim gets a last column of zeros.
    """
    half = dim // 2
    frequencies = jnp.exp(jnp.arange(half, dtype=dtype) * (-math.log(10_000.0) / (half - 1)))
    angles = t.astype(dtype)[:, None] * frequencies[None, :]
    embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


class FourierEmbedding(nn.Module):
    """[sin p, cos p] of p = 2 pi log(t) W with fixed random W. t: (B,) -> (B, 2 dim).

    Not defined at t = 0.
    """

    dim: int
    scale: float

    @nn.compact
    def __call__(self, t: Num[AnyArray, " b"], dtype: Dtype = jnp.float32) -> jax.Array:
        init = nn.initializers.normal(self.scale)
        # The frequencies are stored as a parameter, as published, but are never trained.
        frequencies = jax.lax.stop_gradient(self.param("frequencies", init, (self.dim,)))
        phases = jnp.log(t.astype(dtype))[:, None] * frequencies[None, :] * (2 * math.pi)
        return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], axis=1)


def group_norm(
    x: AnyArray, scale: AnyArray, bias: AnyArray, groups: int, epsilon: float = 1e-6
) -> jax.Array:
    """Normalise each group of channels to zero mean and unit (biased) variance; scale and shift.

    x: (B, H, W, C). scale, bias: float32 or wider, (C,) or (B, 1, 1, C). Returns x's shape, at
    least float32. The variance is that of the centred values; E[x^2] - E[x]^2 would lose digits.
    """
    x = at_least_float32(x)
    centred = x - _group_mean(x, groups)
    variance = _group_mean(jnp.square(centred), groups)
    return centred * (jax.lax.rsqrt(variance + epsilon) * scale) + bias


def _group_mean(x: AnyArray, groups: int) -> jax.Array:
    # One number per channel, (B, 1, 1, C), spread by a sum over zeros and itself: a broadcast from
    # groups to channels would be fused into the loop over the pixels, which then has an index to
    # divide for every entry (measured on a CPU, with SiLU: 3 times as long, also backwards).
    size = x.shape[-1] // groups
    spread = jnp.repeat(jnp.eye(groups, dtype=x.dtype), size, axis=1)
    means = x.mean((1, 2)).reshape(-1, groups, size).mean(2)
    return (means[:, :, None] * spread).sum(1)[:, None, None, :]


class GroupNorm(nn.Module):
    """Group normalisation with a learned scale and bias per channel."""

    @nn.compact
    def __call__(self, x: AnyArray) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return group_norm(x, scale, bias, num_groups(channels)).astype(x.dtype)


class AdaptiveGroupNorm(nn.Module):
    """Group normalisation whose scale and bias are a linear function of the latent embedding.

    The scale is used as it is, with an initial bias of 1 (not "1 + scale").
    """

    dtype: Dtype

    @nn.compact
    def __call__(self, x: AnyArray, latent: AnyArray) -> jax.Array:
        channels = x.shape[-1]
        style = nn.Dense(
            2 * channels,
            kernel_init=uniform_fan_out(),
            bias_init=_ones_then_zeros,
            dtype=self.dtype,
            name="style",
        )(latent)
        # The halves of `_ones_then_zeros`, the scale first.
        scale, bias = jnp.split(at_least_float32(style)[:, None, None, :], 2, axis=-1)
        return group_norm(x, scale, bias, num_groups(channels)).astype(x.dtype)


def _ones_then_zeros(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
    del key
    return jnp.ones(shape, dtype).at[shape[0] // 2 :].set(0)


class Dropout(nn.Module):
    """Dropout with one key per example, so that the batch may be split over any devices.

    keys: (B,) random keys, or None to switch it off. The key is folded with the module's path,
    which gives every layer its own mask.
    """

    rate: float

    @nn.compact
    def __call__(self, x: AnyArray, keys: jax.Array | None) -> jax.Array:
        if keys is None or self.rate == 0.0:
            return x
        # A CRC is the same in every process, unlike Python's `hash` of a text.
        layer = zlib.crc32("/".join(self.path).encode())
        keep = jax.vmap(
            lambda key: jax.random.bernoulli(
                jax.random.fold_in(key, layer), 1.0 - self.rate, x.shape[1:]
            )
        )(keys)
        # The rest is enlarged while training, so that sampling needs no correction.
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros((), x.dtype))


class Attention(nn.Module):
    """Single-head self-attention over all pixels with a residual connection. (B, H, W, C)."""

    skip_rescale: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x: AnyArray) -> jax.Array:
        b, h, w, c = x.shape
        normed = GroupNorm(name="norm")(x).reshape(b, h * w, c)
        query, key, value = (
            nn.Dense(c, kernel_init=uniform_fan_avg(0.1), dtype=self.dtype, name=name)(normed)
            for name in ("query", "key", "value")
        )
        # The softmax runs over all pixels, and bfloat16 has too few digits for its sum.
        logits = at_least_float32(jnp.einsum("bqc,bkc->bqk", query, key)) * c**-0.5
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        attended = jnp.einsum("bqk,bkc->bqc", weights, value)
        out = nn.Dense(c, kernel_init=uniform_fan_avg(0.0), dtype=self.dtype, name="output")(
            attended
        )
        return residual_sum(x, out.reshape(b, h, w, c), self.skip_rescale)


def residual_sum(x: AnyArray, h: AnyArray, rescale: bool) -> jax.Array:
    """Return x + h, divided by sqrt(2) if `rescale`, so that the variance stays."""
    return (x + h) * math.sqrt(0.5) if rescale else x + h
