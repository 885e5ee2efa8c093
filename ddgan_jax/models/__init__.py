"""The networks, and the only files that know Flax.

A config names its networks; their fields are those of the config. Everything else sees two pure
functions on plain nested dicts of arrays, whatever the networks are:

    generate(params, x_{t+1}, t, z, labels, dropout_keys) -> output, like x_{t+1}
    discriminate(params, x_t, t, x_{t+1} or None, labels, dropout_keys) -> Judgement

t is what a schedule tells networks (`diffusion.Transition`), labels are int (B,) and are read
where data.num_classes > 0, dropout_keys are (B,) random keys, or None to switch dropout off.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ddgan_jax import randomness
from ddgan_jax.models import discriminators, mlp, ncsnpp, unet
from ddgan_jax.models.hash_keys import hash_key
from ddgan_jax.state import Judgement, Params


def build_generator(config: ConfigDict) -> Any:
    """The Flax module of config.generator."""
    return _GENERATORS[config.generator.name].build(config)


def build_discriminator(config: ConfigDict) -> Any:
    """The Flax module of config.discriminator."""
    return _DISCRIMINATORS[config.discriminator.name].build(config)


def build_unet(config: ConfigDict) -> unet.UNet:
    """The ADM U-Net of fields such as `interop.adm.config_from_args` gives.

    apply({"params": p}, x (B, H, W, C), timesteps (B,) in 0 .. 1000, labels=None) -> (B, H, W, O).
    """
    return unet.from_config(config)


def make_generate(config: ConfigDict) -> Callable[..., jax.Array]:
    """generate(params, x, t, z, labels, dropout_keys) -> output (B, H, W, C), >= float32."""
    module, inputs = build_generator(config), _GENERATORS[config.generator.name].inputs

    def generate(
        params: Params,
        x: jax.Array,
        t: jax.Array,
        z: jax.Array,
        labels: jax.Array | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        keys = _dropout(config.generator, dropout_keys)
        return module.apply({"params": params}, *inputs(config, x, t, z, labels), **keys)

    return generate


def make_discriminate(config: ConfigDict) -> Callable[..., Judgement]:
    """discriminate(params, x, t, x_tp1, labels, dropout_keys) -> Judgement."""
    module, kind = build_discriminator(config), _DISCRIMINATORS[config.discriminator.name]

    def discriminate(
        params: Params,
        x: jax.Array,
        t: jax.Array,
        x_tp1: jax.Array | None = None,
        labels: jax.Array | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> Judgement:
        inputs = kind.inputs(config, x, t, x_tp1, labels)
        keys = _dropout(config.discriminator, dropout_keys)
        return kind.judgement(config, x, module.apply({"params": params}, *inputs, **keys))

    return discriminate


def init_params(config: ConfigDict, key: jax.Array) -> tuple[Params, Params]:
    """Fresh float32 parameters (generator, discriminator) from one random key."""
    size, channels = config.data.image_size, config.data.channels
    x = jnp.zeros((1, size, size, channels))
    t, labels = jnp.zeros((1,)), jnp.zeros((1,), jnp.int32)
    z = jnp.zeros((1, *latent_shape(config)))
    x_tp1 = x if config.objective.joint else None
    generator_key, discriminator_key = jax.random.split(hash_key(key))
    inputs = _GENERATORS[config.generator.name].inputs(config, x, t, z, labels)
    generator = build_generator(config).init(generator_key, *inputs)
    inputs = _DISCRIMINATORS[config.discriminator.name].inputs(config, x, t, x_tp1, labels)
    discriminator = build_discriminator(config).init(discriminator_key, *inputs)
    return generator["params"], discriminator["params"]


@randomness.reproducible()
def abstract_params(config: ConfigDict) -> tuple[Params, Params]:
    """Return what `init_params` returns as shapes and dtypes; computes nothing, needs no device."""
    return jax.eval_shape(lambda: init_params(config, randomness.run_key(0)))


def latent_shape(config: ConfigDict) -> tuple[int, ...]:
    """Shape of one example's z: (L,), or that of the image where z is further input channels."""
    if config.generator.name != "unet":
        return (config.generator.latent_dim,)
    data = config.data
    channels = 0 if config.generator.latent == "none" else data.channels
    return (data.image_size, data.image_size, channels)


def _compute_dtype(config: ConfigDict) -> Any:
    # None: follow parameters and inputs, float32 unless both are float64.
    return {"float32": None, "bfloat16": jnp.bfloat16}[config.train.compute_dtype]


def _dropout(network: ConfigDict, keys: jax.Array | None) -> dict[str, jax.Array | None]:
    return {"dropout_keys": keys} if "dropout" in network else {}


def _heads(config: ConfigDict) -> dict[str, int]:
    """The outputs of a discriminator with heads, per pixel, in their order."""
    o, channels = config.objective, config.data.channels
    return {
        "logits": config.discriminator.num_logits,
        "regression": channels if o.afd_weight > 0 and o.afd_regression else 0,
        "denoised": channels if o.denoising_weight > 0 else 0,
    }


def _read_heads(config: ConfigDict, x: jax.Array, output: jax.Array) -> Judgement:
    found, start = {}, 0
    for name, width in _heads(config).items():
        found[name] = output[..., start : start + width] if width else None
        start += width
    if found["regression"] is not None:
        # The output layer starts at zero, and with it C at the identity and AFD at 0.
        found["regression"] += x
    return Judgement(**found)


# ---- modules


def _ncsnpp(config: ConfigDict) -> ncsnpp.NCSNpp:
    known = ncsnpp.NCSNpp.__annotations__.keys() - {"name"}  # Flax's own field
    fields = {k: v for k, v in config.generator.items() if k in known}
    return ncsnpp.NCSNpp(
        image_size=config.data.image_size,
        channels=config.data.channels,
        dtype=_compute_dtype(config),
        **fields,
    )


def _convolutional(config: ConfigDict) -> discriminators.Discriminator:
    d = config.discriminator
    make = {"small": discriminators.small, "large": discriminators.large}[d.name]
    return make(d.base_channels, d.time_embedding_dim, d.stddev_groups, _compute_dtype(config))


def _unet(config: ConfigDict, network: ConfigDict, out_channels: int) -> unet.UNet:
    fields = network.to_dict() | {
        "image_size": config.data.image_size,
        "out_channels": out_channels,
        "num_classes": config.data.num_classes,
    }
    return unet.from_config(fields, _compute_dtype(config))


def _unet_generator(config: ConfigDict) -> unet.UNet:
    return _unet(config, config.generator, config.data.channels)


def _unet_discriminator(config: ConfigDict) -> unet.UNet:
    return _unet(config, config.discriminator, sum(_heads(config).values()))


def _mlp(network: ConfigDict, features: int, *, residual: bool) -> mlp.MLP:
    return mlp.MLP(
        features, network.width, network.hidden_layers, network.time_embedding_dim, residual
    )


def _mlp_generator(config: ConfigDict) -> mlp.MLP:
    return _mlp(config.generator, config.data.channels, residual=True)


def _mlp_discriminator(config: ConfigDict) -> mlp.MLP:
    return _mlp(config.discriminator, sum(_heads(config).values()), residual=False)


# ---- what the modules take: (config, x, t, z or x_tp1, labels) -> arguments


def _without_labels(config, x, t, other, labels) -> tuple:
    del config, labels
    return x, t, other


def _as_channels(config, x, t, other, labels) -> tuple:
    inputs = x if other is None else jnp.concatenate([x, other.astype(x.dtype)], axis=-1)
    return inputs, t, labels if config.data.num_classes else None


class _Kind(NamedTuple):
    build: Callable[[ConfigDict], Any]
    inputs: Callable[..., tuple]
    judgement: Callable[[ConfigDict, jax.Array, jax.Array], Judgement] | None = None


_GENERATORS = {
    "ncsnpp": _Kind(_ncsnpp, _without_labels),
    "unet": _Kind(_unet_generator, _as_channels),
    "mlp": _Kind(_mlp_generator, _without_labels),
}
_LOGITS_ALONE = _Kind(_convolutional, _without_labels, lambda config, x, output: Judgement(output))
_DISCRIMINATORS = {
    "small": _LOGITS_ALONE,
    "large": _LOGITS_ALONE,
    "unet": _Kind(_unet_discriminator, _as_channels, _read_heads),
    "mlp": _Kind(_mlp_discriminator, _without_labels, _read_heads),
}
