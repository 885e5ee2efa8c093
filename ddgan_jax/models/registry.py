"""Build the networks that a config can name, behind two signatures that everything else sees:

    generate(params, x_{t+1}, t, z, labels, dropout_keys) -> output, of the shape of x_{t+1}
    discriminate(params, x_t, t, x_{t+1} or None, labels, dropout_keys) -> Judgement

t is what a schedule tells networks (`schedules.Transition`). labels are int (B,) and are read by
networks that know classes. dropout_keys are (B,) random keys, or None to switch dropout off.

A further network is a module in this folder, the group of its fields in the config, and one line in
the tables at the end of this file.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from ml_collections.config_dict import FrozenConfigDict

from ddgan_jax import randomness
from ddgan_jax.config.shapes import diffused_shape, input_size
from ddgan_jax.models import discriminators, mlp, ncsnpp, unet, wavelet
from ddgan_jax.models.callables import Arrange, Discriminator, Generator, Read
from ddgan_jax.models.hash_keys import hash_key
from ddgan_jax.state import AnyArray, Judgement, Params


def build_generator(config: ConfigDict) -> nn.Module:
    """Return the Flax module of config.generator."""
    return _GENERATORS[config.generator.name].build(config)


def build_discriminator(config: ConfigDict) -> nn.Module:
    """Return the Flax module of config.discriminator."""
    return _DISCRIMINATORS[config.discriminator.name].build(config)


def build_unet(config: ConfigDict) -> unet.UNet:
    """Return the ADM U-Net of fields such as `interop.adm.config_from_args` gives.

    apply({"params": p}, x (B, H, W, C), timesteps (B,) in 0 .. 1000, labels=None) -> (B, H, W, O).
    """
    return unet.from_config(config)


def generator(config: ConfigDict) -> Generator:
    """Return config.generator as a function of parameters and arrays."""
    arrange = _GENERATORS[config.generator.name].arrange(config)
    return Generator(
        build_generator(config),
        arrange,
        "dropout" in config.generator,
        config.train.matmul_precision,
    )


def discriminator(config: ConfigDict) -> Discriminator:
    """Return config.discriminator as a function of parameters and arrays."""
    kind = _DISCRIMINATORS[config.discriminator.name]
    return Discriminator(
        build_discriminator(config),
        kind.arrange(config),
        kind.read(config),
        "dropout" in config.discriminator,
        config.train.matmul_precision,
    )


def init_params(config: ConfigDict, key: jax.Array) -> tuple[Params, Params]:
    """Return fresh float32 parameters (generator, discriminator) from one random key."""
    # Flax finds the shapes of the parameters from an example, and its values do not matter.
    x = jnp.zeros((1, *diffused_shape(config)))
    t, labels = jnp.zeros((1,)), jnp.zeros((1,), jnp.int32)
    z = jnp.zeros((1, *latent_shape(config)))
    x_tp1 = x if config.objective.joint else None
    # Keys of this kind compile far faster; `hash_keys` has the figures.
    generator_key, discriminator_key = jax.random.split(hash_key(key))
    g, d = generator(config), discriminator(config)
    g_params = g.module.init(generator_key, *g.arrange(x, t, z, labels))
    d_params = d.module.init(discriminator_key, *d.arrange(x, t, x_tp1, labels))
    return g_params["params"], d_params["params"]


def abstract_params(config: ConfigDict) -> tuple[Params, Params]:
    """Return the shapes and dtypes of `init_params`. Computes nothing and needs no device."""
    # The dictionaries are the caller's own, and the leaves cannot be changed.
    return jax.tree.map(lambda leaf: leaf, _abstract_params(FrozenConfigDict(config)))


# Tracing takes a quarter of a second, and a program often asks for one config's again.
@functools.lru_cache(maxsize=8)
@randomness.reproducible()
def _abstract_params(config: FrozenConfigDict) -> tuple[Params, Params]:
    thawed = ConfigDict(config.to_dict())
    return jax.eval_shape(lambda: init_params(thawed, randomness.run_key(0)))


def latent_shape(config: ConfigDict) -> tuple[int, ...]:
    """Return the shape of one example's z: (L,), or an image's where z is further channels."""
    # A U-Net takes z as further channels of its input.
    if config.generator.name != "unet":
        return (config.generator.latent_dim,)
    height, width, channels = diffused_shape(config)
    return (height, width, 0 if config.generator.latent == "none" else channels)


# ---- arguments of the modules, and the meaning of their outputs


def _without_labels(config: ConfigDict) -> Arrange:
    del config
    return lambda x, t, other, labels: (x, t, other)


def _as_channels(config: ConfigDict) -> Arrange:
    """Return the arguments of a U-Net, whose second image is further channels of the first."""
    has_classes = config.data.num_classes > 0

    # A U-Net without classes has no label embedding, and refuses labels.
    def arrange(x, t, other, labels) -> tuple:
        inputs = x if other is None else jnp.concatenate([x, other.astype(x.dtype)], axis=-1)
        return inputs, t, labels if has_classes else None

    return arrange


def _logits_alone(config: ConfigDict) -> Read:
    del config
    return lambda x, output: Judgement(output)


def _read_heads(config: ConfigDict) -> Read:
    """Return how the output channels of a discriminator are divided among its heads."""
    widths = _head_widths(config)

    def read(x: AnyArray, output: jax.Array) -> Judgement:
        heads, start = {}, 0
        for name, width in widths.items():
            heads[name] = output[..., start : start + width] if width else None
            start += width
        if heads["regression"] is not None:
            # The output layer starts at zero, and with it C at the identity and AFD at 0.
            heads["regression"] += x
        return Judgement(**heads)

    return read


def _head_widths(config: ConfigDict) -> dict[str, int]:
    """Return the output channels of each head of a discriminator, in their order."""
    o, channels = config.objective, diffused_shape(config)[-1]
    return {
        "logits": config.discriminator.num_logits,
        "regression": channels if o.afd_weight > 0 and o.afd_regression else 0,
        "denoised": channels if o.denoising_weight > 0 else 0,
    }


# ---- modules


def _compute_dtype(config: ConfigDict) -> Any:
    # None: follow parameters and inputs, float32 unless both are float64.
    return {"float32": None, "bfloat16": jnp.bfloat16}[config.train.compute_dtype]


def _ncsnpp(config: ConfigDict) -> ncsnpp.NCSNpp:
    g = config.generator
    network = {"ncsnpp": ncsnpp.NCSNpp, "wavelet": wavelet.WaveletNCSNpp}[g.name]
    # The group of a config also has fields for other uses, such as the network's name.
    known = {field.name for field in dataclasses.fields(network)} - {"name"}  # Flax's own field
    return network(
        image_size=input_size(config, "generator"),
        channels=diffused_shape(config)[-1] * g.get("patch_size", 1) ** 2,
        dtype=_compute_dtype(config),
        **{k: v for k, v in g.items() if k in known},
    )


def _convolutional(config: ConfigDict) -> discriminators.Discriminator:
    d = config.discriminator
    make = {"small": discriminators.small, "large": discriminators.large}[d.name]
    return make(
        d.base_channels,
        d.time_embedding_dim,
        d.num_blocks,
        d.stddev_groups,
        _compute_dtype(config),
    )


def _unet(config: ConfigDict, role: str, out_channels: int) -> unet.UNet:
    fields = config[role].to_dict() | {
        "image_size": input_size(config, role),
        "out_channels": out_channels,
        "num_classes": config.data.num_classes,
    }
    return unet.from_config(fields, _compute_dtype(config))


def _unet_generator(config: ConfigDict) -> unet.UNet:
    return _unet(config, "generator", diffused_shape(config)[-1])


def _unet_discriminator(config: ConfigDict) -> unet.UNet:
    return _unet(config, "discriminator", sum(_head_widths(config).values()))


def _mlp(network: ConfigDict, features: int, *, residual: bool) -> mlp.MLP:
    return mlp.MLP(
        features, network.width, network.hidden_layers, network.time_embedding_dim, residual
    )


def _mlp_generator(config: ConfigDict) -> mlp.MLP:
    return _mlp(config.generator, config.data.channels, residual=True)


def _mlp_discriminator(config: ConfigDict) -> mlp.MLP:
    return _mlp(config.discriminator, sum(_head_widths(config).values()), residual=False)


class _Kind(NamedTuple):
    build: Callable[[ConfigDict], nn.Module]
    arrange: Callable[[ConfigDict], Arrange]
    read: Callable[[ConfigDict], Read] = _logits_alone


_GENERATORS = {
    "ncsnpp": _Kind(_ncsnpp, _without_labels),
    "wavelet": _Kind(_ncsnpp, _without_labels),
    "unet": _Kind(_unet_generator, _as_channels),
    "mlp": _Kind(_mlp_generator, _without_labels),
}
_DISCRIMINATORS = {
    "small": _Kind(_convolutional, _without_labels),
    "large": _Kind(_convolutional, _without_labels),
    "unet": _Kind(_unet_discriminator, _as_channels, _read_heads),
    "mlp": _Kind(_mlp_discriminator, _without_labels, _read_heads),
}
