"""Define the U-Net of ADM (Dhariwal & Nichol 2021), SIDDM's generator and discriminator.

One network f(x, t, class) from images to images of the same size; generator and discriminator
differ in their input and output channels. The names of the modules say where they stand:
down_{level}_block_{i}, middle_attention, up_{level}_upsample, ...

Two orders of blocks and resampling, for levels 0, 1, ... of widths C_0, C_1, ...:

    "adm"     level l has image_size / 2^l pixels. Down: blocks, then resampling C_l -> C_l unless
              it is the last. Up: blocks, then resampling C_l -> C_l unless it is level 0.
    "imagen"  level l has image_size / 2^(l+1) pixels, none the full resolution. Down: resampling
              C_(l-1) -> C_l, then blocks. Up: blocks, then resampling C_l -> C_(l-1). C_(-1) = C_0.

Everything that the way down puts out, each block and each resampling, the way up concatenates to
the input of one of its num_res_blocks + 1 blocks per level; "adm" has one more output there, that
of the first convolution, and "imagen" one more resampling.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Num
from ml_collections import ConfigDict

from ddgan_jax.config import shapes
from ddgan_jax.models import resample
from ddgan_jax.models.layers import Dtype, at_least_float32
from ddgan_jax.models.unet_blocks import Attention, GroupNorm, ResBlock, conv3x3, dense
from ddgan_jax.state import AnyArray, Keys, Labels


def timestep_embedding(
    t: Num[AnyArray, " b"], dim: int, dtype: Dtype = jnp.float32
) -> Float[jax.Array, "b {dim}"]:
    """Return [cos(t f_k), sin(t f_k)], (B, dim), with f_k = 10000^(-k / (dim/2)), dim even."""
    half = dim // 2
    frequencies = jnp.exp(jnp.arange(half, dtype=dtype) * (-math.log(10_000.0) / half))
    angles = t.astype(dtype)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


class UNet(nn.Module):
    """The network; `check` says which fields do not fit together.

    dtype: the compute dtype, as in `layers`. The embeddings of time and class and the output's
    layer are computed in float32 (or wider) whatever it is.
    """

    out_channels: int
    # Pixels, a multiple of 2 to the number of times that it is halved.
    image_size: int
    base_channels: int
    # The width of each level, in base_channels.
    channel_multipliers: Sequence[float]
    # For each level on the way down; there is one more on the way up.
    num_res_blocks: int
    # Pixels of the levels that attend; the middle attends in any case.
    attention_resolutions: Sequence[int]
    dropout: float = 0.0  # probability, in every residual block
    num_heads: int = 1
    head_channels: int = 0  # width of a head; > 0 overrides num_heads
    num_heads_up: int = 0  # heads on the way up; 0 = num_heads
    # The embedding modulates norms; if False, it is added before them.
    scale_shift_norm: bool = True
    # Resample inside of residual blocks, in the order "adm" only.
    resblock_updown: bool = False
    resample_with_conv: bool = True  # otherwise by means and nearest neighbours alone
    updown_order: str = "adm"  # or "imagen", see above
    num_classes: int = 0  # 0 = no labels
    # Pixels of the levels that are computed again in the backward pass.
    remat_resolutions: Sequence[int] = ()
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "b h w c"],
        timesteps: Num[AnyArray, " b"],
        labels: Labels = None,
        dropout_keys: Keys | None = None,
    ) -> Float[jax.Array, "b h w k"]:
        """Return the output with `out_channels` channels, float32 (or wider).

        timesteps: (B,), float, of the order of 0 ... 1000. labels: (B,) ints below num_classes,
        if and only if there are classes (else ValueError). dropout_keys: (B,) random keys while
        training; None switches dropout off. Raises UserError as `check` does.
        """
        check(self)
        embedding = self._embed(timesteps, labels, jnp.promote_types(x.dtype, jnp.float32))
        context = (embedding, dropout_keys)
        h = x if self.dtype is None else x.astype(self.dtype)
        h = conv3x3(h, self._width(0), name="input_conv", dtype=self.dtype)
        h, skips = self._encode(h, context)
        last = len(self.channel_multipliers) - 1
        h = self._block(last, "middle_block_0")(h, *context)
        h = self._attention(last, "middle_attention")(h)
        h = self._block(last, "middle_block_1")(h, *context)
        h = self._decode(h, skips, context)
        # The last layer starts at zero, and with it the output of a fresh network.
        h = nn.silu(GroupNorm(name="output_norm")(at_least_float32(h)))
        return conv3x3(h, self.out_channels, name="output_conv", dtype=None, zero=True)

    def _embed(
        self, timesteps: Num[AnyArray, " b"], labels: AnyArray | None, dtype: Dtype
    ) -> jax.Array:
        """Embed time and class together, (B, 4 base_channels), after the activation."""
        if (labels is None) != (self.num_classes == 0):
            given = "missing" if labels is None else "given"
            raise ValueError(f"labels are {given}, and num_classes is {self.num_classes}")
        width = 4 * self.base_channels
        h = timestep_embedding(timesteps, self.base_channels, dtype)
        h = nn.silu(dense(h, width, name="time_dense_0", dtype=None))
        h = dense(h, width, name="time_dense_1", dtype=None)
        if self.num_classes:
            init = nn.initializers.normal(1.0)
            embed = nn.Embed(self.num_classes, width, embedding_init=init, name="label_embedding")
            h = h + embed(labels)
        return nn.silu(h)

    def _encode(self, h: AnyArray, context: tuple) -> tuple[jax.Array, list[jax.Array]]:
        """Run the way down; return the deepest features and all that the way up concatenates."""
        imagen = self.updown_order == "imagen"
        # In the order "imagen" the first convolution is at full resolution, which no block sees.
        skips = [] if imagen else [h]
        last = len(self.channel_multipliers) - 1
        for level in range(last + 1):
            if imagen:
                h = self._downsample(h, level, context)
                skips.append(h)
            for i in range(self.num_res_blocks):
                h = self._block(level, f"down_{level}_block_{i}")(h, *context)
                if self._pixels(level) in self.attention_resolutions:
                    h = self._attention(level, f"down_{level}_attention_{i}")(h)
                skips.append(h)
            if not imagen and level < last:
                h = self._downsample(h, level, context)
                skips.append(h)
        return h, skips

    def _decode(self, h: AnyArray, skips: list[jax.Array], context: tuple) -> jax.Array:
        """Run the way up, to the features at full resolution."""
        for level in reversed(range(len(self.channel_multipliers))):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(level, f"up_{level}_block_{i}")(h, *context)
                if self._pixels(level) in self.attention_resolutions:
                    h = self._attention(level, f"up_{level}_attention_{i}", up=True)(h)
            if level or self.updown_order == "imagen":
                h = self._upsample(h, level, context)
        return h

    def _downsample(self, h: AnyArray, level: int, context: tuple) -> jax.Array:
        name = f"down_{level}_downsample"
        if self.resblock_updown:
            return self._block(level, name, resample.downsample_mean)(h, *context)
        if self.resample_with_conv:
            return conv3x3(h, self._width(level), name=name, dtype=self.dtype, stride=2)
        return resample.downsample_mean(h)

    def _upsample(self, h: AnyArray, level: int, context: tuple) -> jax.Array:
        name = f"up_{level}_upsample"
        if self.resblock_updown:
            return self._block(level, name, resample.upsample_nearest)(h, *context)
        h = resample.upsample_nearest(h)
        if self.resample_with_conv:
            # The width of the level above; level 0 has none, and keeps its own.
            to_level = level if self.updown_order == "adm" else max(level - 1, 0)
            h = conv3x3(h, self._width(to_level), name=name, dtype=self.dtype)
        return h

    def _pixels(self, level: int) -> int:
        return shapes.resolutions(self, self.image_size)[level]

    def _width(self, level: int) -> int:
        return shapes.width(self, level)

    def _recomputed(self, level: int, module: type[nn.Module]) -> type[nn.Module]:
        return nn.remat(module) if self._pixels(level) in self.remat_resolutions else module

    def _block(
        self, level: int, name: str, resampling: Callable[[jax.Array], jax.Array] | None = None
    ) -> nn.Module:
        return self._recomputed(level, ResBlock)(
            features=self._width(level),
            dropout=self.dropout,
            scale_shift_norm=self.scale_shift_norm,
            dtype=self.dtype,
            resampling=resampling,
            name=name,
        )

    def _attention(self, level: int, name: str, up: bool = False) -> nn.Module:
        heads = attention_heads(self, self._width(level), up)
        return self._recomputed(level, Attention)(heads, self.dtype, name=name)


def attention_heads(network: UNet | ConfigDict, width: int, up: bool) -> int:
    """Return the heads of an attention layer of `width` channels. up: on the way up."""
    if network.head_channels:
        return width // network.head_channels
    return (up and network.num_heads_up) or network.num_heads


def check(network: UNet) -> None:
    """Raise UserError if there is no network of these fields."""
    shapes.check_unet(network, network.image_size)


FIELDS = tuple(
    field.name
    for field in dataclasses.fields(UNet)
    # These fields are Flax's and ours, and no part of the architecture.
    if field.name not in ("dtype", "name", "parent")
)


def from_config(config: ConfigDict | Mapping[str, Any], dtype: Dtype = None) -> UNet:
    """Return the network with the fields of the config; other entries of it are ignored."""
    return UNet(**{name: config[name] for name in FIELDS if name in config}, dtype=dtype)
