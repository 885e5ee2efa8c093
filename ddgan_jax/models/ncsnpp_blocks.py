"""Define the blocks of the NCSN++ generator: residual, resampling, mapping of the latent.

Every option of the published network is a field, named as in `ncsnpp`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddgan_jax.models import layers, resample
from ddgan_jax.models.layers import Conv3x3, Dtype, residual_sum, uniform_fan_avg
from ddgan_jax.state import AnyArray


class Downsample(nn.Module):
    """Half the resolution: FIR or 2x2 mean, or a convolution to `features` channels."""

    fir: bool
    taps: Sequence[float]
    features: int = 0  # 0: no convolution
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: AnyArray) -> jax.Array:
        if not self.features:
            return (
                resample.downsample_fir(x, self.taps) if self.fir else resample.downsample_mean(x)
            )
        if self.fir:
            x, padding = resample.blur_before_strided_conv(x, self.taps), "VALID"
        else:
            # The published code pads at the bottom and on the right only.
            padding = ((0, 1), (0, 1))
        init = uniform_fan_avg()
        return nn.Conv(
            self.features, (3, 3), 2, padding, kernel_init=init, dtype=self.dtype, name="conv"
        )(x)


class Upsample(nn.Module):
    """Twice the resolution: FIR or nearest neighbour, or a convolution to `features` channels."""

    fir: bool
    taps: Sequence[float]
    features: int = 0  # 0: no convolution
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: AnyArray) -> jax.Array:
        if not self.features:
            return resample.upsample_fir(x, self.taps) if self.fir else resample.upsample_nearest(x)
        if not self.fir:
            x = resample.upsample_nearest(x)
            return Conv3x3(self.features, uniform_fan_avg(), self.dtype, name="conv")(x)
        # Full correlation with the zero-inserted image, 2H + 1 pixels, which the filter evens out.
        x = nn.Conv(
            self.features,
            (3, 3),
            padding=2,
            input_dilation=2,
            use_bias=False,
            kernel_init=uniform_fan_avg(),
            dtype=self.dtype,
            name="conv",
        )(x)
        # The bias follows the filter, which would darken it at the border.
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return resample.blur_after_transposed_conv(x, self.taps) + bias.astype(x.dtype)


class ResidualParts(nn.Module):
    """The parts of residual blocks, whose normalisations are styled by the latent.

    kind: as in `ResBlock`. Arguments: time (B, E), after its activation, or None; latent (B, Z).
    """

    features: int
    kind: str
    dropout: float
    skip_rescale: bool
    dtype: Dtype

    def activated(self, x: AnyArray, latent: AnyArray) -> jax.Array:
        """Return what the first convolution reads."""
        return nn.silu(layers.AdaptiveGroupNorm(self.dtype, name="norm_0")(x, latent))

    def first_conv(self, h: AnyArray) -> jax.Array:
        """Return the output of the first convolution."""
        return Conv3x3(self.features, uniform_fan_avg(), self.dtype, name="conv_0")(h)

    def second_half(
        self, h: AnyArray, time: AnyArray | None, latent: AnyArray, dropout_keys: jax.Array | None
    ) -> jax.Array:
        """Return the branch's output, from that of its first convolution."""
        init, dtype = uniform_fan_avg, self.dtype
        if time is not None:
            dense = nn.Dense(self.features, kernel_init=init(), dtype=dtype, name="time")
            h = h + dense(time)[:, None, None, :]
        if self.kind == "biggan_oneadagn":
            h = layers.GroupNorm(name="norm_1")(h)
        else:
            h = layers.AdaptiveGroupNorm(dtype, name="norm_1")(h, latent)
        h = layers.Dropout(self.dropout, name="dropout")(nn.silu(h), dropout_keys)
        # A fresh block starts near its own shortcut.
        return Conv3x3(self.features, init(0.0), dtype, name="conv_1")(h)

    def shortcut(self, x: AnyArray) -> jax.Array:
        """Return x with the width of the output."""
        # The published block of this kind starts with a smaller shortcut.
        init = uniform_fan_avg(0.1 if self.kind == "ddpm" else 1.0)
        return nn.Dense(self.features, kernel_init=init, dtype=self.dtype, name="shortcut")(x)


class ResBlock(ResidualParts):
    """Residual block whose normalisations are styled by the latent and which adds the time.

    kind "biggan": resamples inside, shortcut by 1x1 convolution. "biggan_oneadagn": the same with
    a plain second normalisation. "ddpm": never resamples.
    """

    fir: bool
    taps: Sequence[float]
    resampling: str = "none"  # "none", "down" or "up"

    def _resample(self, x: AnyArray) -> jax.Array:
        module = {"down": Downsample, "up": Upsample}[self.resampling]
        return module(self.fir, self.taps, name=None)(x)

    @nn.compact
    def __call__(
        self,
        x: AnyArray,
        time: AnyArray | None,
        latent: AnyArray,
        dropout_keys: jax.Array | None,
    ) -> jax.Array:
        """Return the output. time: (B, E), after its activation, or None. latent: (B, Z)."""
        h = self.activated(x, latent)
        # Both ways are resampled, the branch before its first convolution.
        if self.resampling != "none":
            h, x = self._resample(h), self._resample(x)
        h = self.second_half(self.first_conv(h), time, latent, dropout_keys)
        if x.shape[-1] != self.features or self.resampling != "none":
            x = self.shortcut(x)
        return residual_sum(x, h, self.skip_rescale)


class LatentMapping(nn.Module):
    """z (B, L), normalised to unit mean square, through num_layers + 1 dense layers with SiLU."""

    features: int
    num_layers: int
    dtype: Dtype

    @nn.compact
    def __call__(self, z: AnyArray) -> jax.Array:
        z = layers.at_least_float32(z)
        # The small number keeps the gradient finite at z = 0.
        h = z * jax.lax.rsqrt(jnp.square(z).mean(axis=1, keepdims=True) + 1e-8)
        for i in range(self.num_layers + 1):
            init = layers.uniform_fan_out()
            dense = nn.Dense(self.features, kernel_init=init, dtype=self.dtype, name=f"dense_{i}")
            h = nn.silu(dense(h))
        return h
