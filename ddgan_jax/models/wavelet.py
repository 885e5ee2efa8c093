"""Define the NCSN++ that resamples by Haar transforms: the generator of WaveDiff.

Phung, Dao, Tran 2023. Three parts differ from `ncsnpp`, and each can be switched off:

    residual blocks     go down to LL of their features and set the details aside, and go up with
                        those details, one convolution for each band
    middle blocks       work on LL alone, and leave the details as they are
    input pyramid       takes all bands, by one convolution

At 512 pixels the generator also folds patches of its input into channels. The input may be images
or their bands: the transforms inside are those of features.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from ddgan_jax import haar
from ddgan_jax.haar import Details
from ddgan_jax.models import resample
from ddgan_jax.models.layers import Dtype, conv3x3, residual_sum, uniform_fan_avg
from ddgan_jax.models.ncsnpp import NCSNpp, Skips
from ddgan_jax.models.ncsnpp_blocks import ResBlock, ResidualParts
from ddgan_jax.state import AnyArray, Keys


class WaveletNCSNpp(NCSNpp, kw_only=True):
    """The generator. Fields as in config.generator, where each is described.

    image_size, channels: those behind the patches, (H / P) and P^2 C.
    """

    patch_size: int
    wavelet_blocks: bool
    wavelet_middle: bool
    wavelet_pyramid: bool

    def _encode(self, x: AnyArray, context: tuple) -> tuple[jax.Array, Skips]:
        return super()._encode(to_patches(x, self.patch_size), context)

    def _decode(self, h: AnyArray, skips: Skips, context: tuple) -> jax.Array:
        return from_patches(super()._decode(h, skips, context), self.patch_size)

    def _middle(self, h: AnyArray, context: tuple) -> jax.Array:
        if not self.wavelet_middle:
            return super()._middle(h, context)
        first, second = (self._block(h.shape[-1], f"middle_block_{i}") for i in range(2))
        h = _on_low_band(first, h, context)
        h = self._attention("middle_attention")(h)
        # The second block is used twice with the same weights, as published.
        h = second(h, *context)
        return _on_low_band(second, h, context)

    def _downsample_pyramid(self, pyramid: AnyArray, features: int, name: str) -> jax.Array:
        if not self.wavelet_pyramid:
            return super()._downsample_pyramid(pyramid, features, name)
        ll, details = haar.split(pyramid)
        return self._conv(features, name)(jnp.concatenate([ll, *details], axis=-1) / 2)

    def _downsample(self, h: AnyArray, name: str, context: tuple) -> tuple[jax.Array, Any]:
        if not self._resamples_by_wavelets():
            return super()._downsample(h, name, context)
        return WaveletDown(**self._parts(h.shape[-1]), name=name)(h, *context)

    def _upsample(self, h: AnyArray, details: Any, name: str, context: tuple) -> jax.Array:
        if not self._resamples_by_wavelets():
            return super()._upsample(h, details, name, context)
        return WaveletUp(**self._parts(h.shape[-1]), name=name)(h, details, *context)

    def _resamples_by_wavelets(self) -> bool:
        # Blocks of this kind never resample, so that there is nothing to exchange.
        return self.wavelet_blocks and self.resblock != "ddpm"


def _on_low_band(block: ResBlock, h: AnyArray, context: tuple) -> jax.Array:
    """Return h with the means of its 2 x 2 blocks replaced by the block's output for them."""
    ll, details = haar.split(h)
    return haar.join(2 * block(ll / 2, *context), details)


class WaveletDown(ResidualParts):
    """Residual block that goes down to LL / 2, the means of 2 x 2, after its first convolution."""

    @nn.compact
    def __call__(
        self, x: AnyArray, time: AnyArray | None, latent: AnyArray, dropout_keys: Keys | None
    ) -> tuple[jax.Array, Details]:
        """Return the output and the details of the branch. Arguments: as those of `ResBlock`."""
        ll, details = haar.split(self.first_conv(self.activated(x, latent)))
        h = self.second_half(ll / 2, time, latent, dropout_keys)
        # The details of the shortcut are not used.
        x = resample.downsample_mean(self.shortcut(x))
        return residual_sum(x, h, self.skip_rescale), details


class WaveletUp(ResidualParts):
    """Residual block that goes up after its first convolution, both ways with the same details."""

    @nn.compact
    def __call__(
        self,
        x: AnyArray,
        details: Details,
        time: AnyArray | None,
        latent: AnyArray,
        dropout_keys: Keys | None,
    ) -> jax.Array:
        """Return the output. details: of the block that went down between the same levels."""
        h = self.first_conv(self.activated(x, latent))
        details = BandConvs(self.features, self.dtype, name="detail_convs")(details)
        h, x = (haar.join(2 * way, details) for way in (h, self.shortcut(x)))
        h = self.second_half(h, time, latent, dropout_keys)
        return residual_sum(x, h, self.skip_rescale)


class BandConvs(nn.Module):
    """One 3x3 convolution for each detail band, stored as one convolution of three groups.

    The published network convolves half of the bands and doubles the result: the bias counts twice.
    """

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, details: Details) -> Details:
        """Return the bands (B, H, W, features) of bands (B, H, W, C)."""
        shape = (3, 3, details.lh.shape[-1], 3 * self.features)
        kernel = self.param("kernel", uniform_fan_avg(), shape)
        bias = self.param("bias", nn.initializers.zeros, (3 * self.features,))
        # Three convolutions and not one of three groups, for which XLA has no fast code on a CPU.
        parts = zip(details, jnp.split(kernel, 3, axis=-1), jnp.split(bias, 3), strict=True)
        return Details(*(_conv3x3(band, k, 2 * b, self.dtype) for band, k, b in parts))


def _conv3x3(x: AnyArray, kernel: AnyArray, bias: AnyArray, dtype: Dtype) -> jax.Array:
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=dtype)
    return conv3x3(x, kernel) + bias


def to_patches(x: AnyArray, size: int) -> jax.Array:
    """Fold patches into channels: (B, H, W, C) -> (B, H / P, W / P, P^2 C).

    Pixel (p, q) of a patch and channel c become channel (p P + q) C + c.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // size, w // size, size * size * c)


def from_patches(x: AnyArray, size: int) -> jax.Array:
    """Unfold channels into patches: (B, H, W, P^2 C) -> (B, P H, P W, C).

    Channel c P^2 + p P + q becomes channel c of pixel (p, q). As published, this is another order
    than that of `to_patches`.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, c // size**2, size, size)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, h * size, w * size, c // size**2)
