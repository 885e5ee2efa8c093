"""Define the networks. No other files know Flax, and `registry` is how the rest sees them."""

from ddgan_jax.models.registry import (
    Discriminator,
    Generator,
    abstract_params,
    build_discriminator,
    build_generator,
    build_unet,
    discriminator,
    generator,
    init_params,
    latent_shape,
)

__all__ = [
    "Discriminator",
    "Generator",
    "abstract_params",
    "build_discriminator",
    "build_generator",
    "build_unet",
    "discriminator",
    "generator",
    "init_params",
    "latent_shape",
]
