"""The networks, and the only files that know Flax.

Everything else sees `network.init(key, ...)` and `network.apply({"params": params}, ...)` on
plain nested dicts of arrays. A config names its networks; their fields are those of the config.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ddgan_jax.models import discriminators, ncsnpp


def _compute_dtype(config: ConfigDict) -> Any:
    # None: follow parameters and inputs, float32 unless both are float64.
    return {"float32": None, "bfloat16": jnp.bfloat16}[config.train.compute_dtype]


def _ncsnpp(config: ConfigDict) -> ncsnpp.NCSNpp:
    fields = {k: v for k, v in config.generator.items() if k in ncsnpp.NCSNpp.__annotations__}
    return ncsnpp.NCSNpp(
        image_size=config.data.image_size,
        channels=config.data.channels,
        dtype=_compute_dtype(config),
        **fields,
    )


def _discriminator(config: ConfigDict) -> discriminators.Discriminator:
    d = config.discriminator
    make = {"small": discriminators.small, "large": discriminators.large}[d.name]
    return make(d.base_channels, d.time_embedding_dim, _compute_dtype(config))


_GENERATORS = {"ncsnpp": _ncsnpp}
_DISCRIMINATORS = {"small": _discriminator, "large": _discriminator}


def build_generator(config: ConfigDict) -> Any:
    """The generator of config.generator: apply({"params": p}, x, t, z) -> x_0 (B, H, W, C)."""
    return _GENERATORS[config.generator.name](config)


def build_discriminator(config: ConfigDict) -> Any:
    """The discriminator of config.discriminator: apply({"params": p}, x_prev, t, x_t) -> (B,)."""
    return _DISCRIMINATORS[config.discriminator.name](config)


def init_params(config: ConfigDict, key: jax.Array) -> tuple[Any, Any]:
    """Fresh float32 parameters (generator, discriminator) from one random key."""
    size, channels = config.data.image_size, config.data.channels
    x = jnp.zeros((1, size, size, channels))
    t = jnp.zeros((1,), jnp.int32)
    z = jnp.zeros((1, config.generator.latent_dim))
    generator_key, discriminator_key = jax.random.split(key)
    generator = build_generator(config).init(generator_key, x, t, z)
    discriminator = build_discriminator(config).init(discriminator_key, x, t, x)
    return generator["params"], discriminator["params"]
