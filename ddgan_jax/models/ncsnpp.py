"""Define the NCSN++ U-Net as DDGAN's generator: x_0 = G(x_{t+1}, t, z).

Song et al. 2021 (architecture), Xiao et al. 2022 (the latent z enters through adaptive group
normalisation). Every option of the published network is a field; the names of the modules say
where they stand: down_{level}_block_{i}, middle_attention, up_{level}_upsample, ...
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Num

from ddgan_jax.config.shapes import resolutions
from ddgan_jax.models import layers
from ddgan_jax.models.layers import Conv3x3, Dtype, residual_sum, uniform_fan_avg
from ddgan_jax.models.ncsnpp_blocks import Downsample, LatentMapping, ResBlock, Upsample
from ddgan_jax.state import AnyArray, Keys


class Skips(NamedTuple):
    """What the way down keeps for the way up; both lists are taken back from their ends.

    features: the outputs of all blocks, which the way up concatenates. details: what each level's
    downsampling set aside for the upsampling to that level; nothing, None, where it filters.
    """

    features: list[jax.Array]
    details: list[Any]


class NCSNpp(nn.Module):
    """The generator. Fields as in config.generator, where each is described.

    image_size, channels: of the input and the output, whatever they hold.
    """

    image_size: int
    channels: int
    base_channels: int
    channel_multipliers: Sequence[int]
    num_res_blocks: int
    attention_resolutions: Sequence[int]
    dropout: float
    resblock: str
    progressive: str
    progressive_input: str
    progressive_combine: str
    resample_with_conv: bool
    fir: bool
    fir_kernel: Sequence[float]
    skip_rescale: bool
    time_embedding: str
    fourier_scale: float
    time_conditional: bool
    centered: bool
    output_tanh: bool
    latent_embedding_dim: int
    latent_layers: int
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "b h w c"],
        t: Num[AnyArray, " b"],
        z: Float[AnyArray, "b l"],
        *,
        dropout_keys: Keys | None = None,
    ) -> Float[jax.Array, "b h w c"]:
        """Return x_0, float32 (or wider), from x_{t+1}, its time and the latent z.

        dropout_keys: random keys while training; None, as for sampling, switches dropout off.
        """
        context = (self._embed_time(t, x), self._map_latent(z), dropout_keys)
        # The network sees images in [-1, 1], also of data in [0, 1].
        x = x if self.centered else 2 * x - 1
        x = x if self.dtype is None else x.astype(self.dtype)
        # The way down, the middle, the way up; the tanh is then computed in float32.
        h, skips = self._encode(x, context)
        h = self._middle(h, context)
        out = layers.at_least_float32(self._decode(h, skips, context))
        return jnp.tanh(out) if self.output_tanh else out

    def _embed_time(
        self, t: Num[AnyArray, " b"], x: Float[AnyArray, "b h w c"]
    ) -> jax.Array | None:
        if not self.time_conditional:
            return None
        # Sines of large angles need the digits of float32.
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        if self.time_embedding == "fourier":
            embed = layers.FourierEmbedding(
                self.base_channels, self.fourier_scale, name="time_fourier"
            )
            embedding = embed(t, dtype)
        else:
            embedding = layers.sinusoidal_embedding(t, self.base_channels, dtype)
        for i in range(2):
            embedding = nn.Dense(
                4 * self.base_channels,
                kernel_init=uniform_fan_avg(),
                dtype=self.dtype,
                name=f"time_dense_{i}",
            )(embedding)
            embedding = nn.silu(embedding)
        return embedding

    def _map_latent(self, z: AnyArray) -> jax.Array:
        return LatentMapping(
            self.latent_embedding_dim, self.latent_layers, self.dtype, name="latent_mapping"
        )(z)

    def _encode(self, x: AnyArray, context: tuple) -> tuple[jax.Array, Skips]:
        """Run the way down; return the deepest features and what the way up needs of the others."""
        h = self._conv(self.base_channels, "input_conv")(x)
        pyramid, skips = x, Skips([h], [])
        last = len(self.channel_multipliers) - 1
        for level, multiplier in enumerate(self.channel_multipliers):
            for i in range(self.num_res_blocks):
                width = self.base_channels * multiplier
                h = self._block(width, f"down_{level}_block_{i}")(h, *context)
                if self._attends(level):
                    h = self._attention(f"down_{level}_attention_{i}")(h)
                skips.features.append(h)
            if level < last:
                h, details = self._downsample(h, f"down_{level}_downsample", context)
                skips.details.append(details)
                h, pyramid = self._join_input_pyramid(h, pyramid, f"down_{level}_pyramid")
                skips.features.append(h)
        return h, skips

    def _middle(self, h: AnyArray, context: tuple) -> jax.Array:
        h = self._block(h.shape[-1], "middle_block_0")(h, *context)
        h = self._attention("middle_attention")(h)
        return self._block(h.shape[-1], "middle_block_1")(h, *context)

    def _join_input_pyramid(
        self, h: AnyArray, pyramid: AnyArray, name: str
    ) -> tuple[jax.Array, jax.Array]:
        if self.progressive_input == "residual":
            # The sum goes on as features and as the pyramid of the next level.
            pyramid = self._downsample_pyramid(pyramid, h.shape[-1], name)
            h = residual_sum(pyramid, h, self.skip_rescale)
            return h, h
        if self.progressive_input == "input_skip":
            # Without features a resampling has no parameters, and needs no name.
            pyramid = Downsample(self.fir, self.fir_kernel)(pyramid)
            # The pyramid is the image itself, and a 1x1 convolution gives it the width of the
            # features.
            conv = nn.Dense(
                h.shape[-1], kernel_init=uniform_fan_avg(), dtype=self.dtype, name=name
            )(pyramid)
            cat = self.progressive_combine == "cat"
            h = jnp.concatenate([conv, h], axis=-1) if cat else conv + h
        return h, pyramid

    def _downsample_pyramid(self, pyramid: AnyArray, features: int, name: str) -> jax.Array:
        return Downsample(self.fir, self.fir_kernel, features, self.dtype, name=name)(pyramid)

    def _decode(self, h: AnyArray, skips: Skips, context: tuple) -> jax.Array:
        """Run the way up, to the image before its tanh."""
        pyramid = None
        for level in reversed(range(len(self.channel_multipliers))):
            width = self.base_channels * self.channel_multipliers[level]
            for i in range(self.num_res_blocks + 1):
                # There is one block more than on the way down, for the output of the resampling
                # or, at level 0, of the first convolution.
                h = jnp.concatenate([h, skips.features.pop()], axis=-1)
                h = self._block(width, f"up_{level}_block_{i}")(h, *context)
            # Once for each level on the way up, and after each block on the way down, as published.
            if self._attends(level):
                h = self._attention(f"up_{level}_attention")(h)
            h, pyramid = self._join_output_pyramid(h, pyramid, f"up_{level}_pyramid")
            if level:
                h = self._upsample(h, skips.details.pop(), f"up_{level}_upsample", context)
        if self.progressive == "output_skip" and pyramid is not None:
            return pyramid
        return self._norm_conv(h, self.channels, "output", 0.0)

    def _join_output_pyramid(
        self, h: AnyArray, pyramid: AnyArray | None, name: str
    ) -> tuple[jax.Array, jax.Array | None]:
        if self.progressive == "output_skip":
            # The output is the sum of an image from each level, enlarged.
            image = self._norm_conv(h, self.channels, name, 0.0)
            if pyramid is not None:
                image = Upsample(self.fir, self.fir_kernel)(pyramid) + image
            return h, image
        if self.progressive == "residual":
            if pyramid is None:
                # The pyramid begins at the deepest level.
                return h, self._norm_conv(h, h.shape[-1], name, 1.0)
            pyramid = Upsample(self.fir, self.fir_kernel, h.shape[-1], self.dtype, name=name)(
                pyramid
            )
            h = residual_sum(pyramid, h, self.skip_rescale)
            return h, h
        return h, None

    def _attends(self, level: int) -> bool:
        return resolutions(self, self.image_size)[level] in self.attention_resolutions

    def _conv(self, features: int, name: str, scale: float = 1.0) -> Conv3x3:
        return Conv3x3(features, uniform_fan_avg(scale), self.dtype, name=name)

    def _norm_conv(self, h: AnyArray, features: int, name: str, scale: float) -> jax.Array:
        h = nn.silu(layers.GroupNorm(name=f"{name}_norm")(h))
        return self._conv(features, f"{name}_conv", scale)(h)

    def _attention(self, name: str) -> layers.Attention:
        return layers.Attention(self.skip_rescale, self.dtype, name=name)

    def _block(self, features: int, name: str, resampling: str = "none") -> ResBlock:
        return ResBlock(
            **self._parts(features),
            fir=self.fir,
            taps=self.fir_kernel,
            resampling=resampling,
            name=name,
        )

    def _parts(self, features: int) -> dict[str, Any]:
        """Return the fields of `ResidualParts` for a block of this network."""
        return {
            "features": features,
            "kind": self.resblock,
            "dropout": self.dropout,
            "skip_rescale": self.skip_rescale,
            "dtype": self.dtype,
        }

    def _downsample(self, h: AnyArray, name: str, context: tuple) -> tuple[jax.Array, Any]:
        """Return the features at half the resolution, and what `Skips.details` keeps."""
        # Blocks of BigGAN's kind resample inside of themselves.
        if self.resblock != "ddpm":
            return self._block(h.shape[-1], name, "down")(h, *context), None
        features = h.shape[-1] if self.resample_with_conv else 0
        return Downsample(self.fir, self.fir_kernel, features, self.dtype, name=name)(h), None

    def _upsample(self, h: AnyArray, details: Any, name: str, context: tuple) -> jax.Array:
        """Return the features at twice the resolution. details: those of the same two levels."""
        del details
        if self.resblock != "ddpm":
            return self._block(h.shape[-1], name, "up")(h, *context)
        features = h.shape[-1] if self.resample_with_conv else 0
        return Upsample(self.fir, self.fir_kernel, features, self.dtype, name=name)(h)
