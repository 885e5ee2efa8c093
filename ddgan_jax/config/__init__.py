"""Configs: every setting of a run, how it is read and written, and what makes no sense."""

from ddgan_jax.config.defaults import (
    DISCRIMINATORS,
    GENERATORS,
    LARGEST,
    LARGEST_IMAGE,
    LOCAL_PATHS,
    MOST_IMAGES,
    MOST_TIMESTEPS,
    ConfigDict,
    apply_variant,
    base_config,
    empty_local_paths,
    from_stored,
    resolutions,
    siddm_config,
    tiny,
)

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "LARGEST",
    "LARGEST_IMAGE",
    "LOCAL_PATHS",
    "MOST_IMAGES",
    "MOST_TIMESTEPS",
    "ConfigDict",
    "apply_variant",
    "base_config",
    "empty_local_paths",
    "from_stored",
    "resolutions",
    "siddm_config",
    "tiny",
]
