"""Declare every setting of a run, read and write configs, and refuse those that cannot work."""

from ddgan_jax.config.defaults import (
    LOCAL_PATHS,
    POINT_SETS,
    STACKED_SETS,
    base_config,
    empty_local_paths,
    has_points,
)
from ddgan_jax.config.method import method_title
from ddgan_jax.config.networks import DISCRIMINATORS, GENERATORS
from ddgan_jax.config.schema import (
    LARGEST,
    LARGEST_IMAGE,
    MOST_IMAGES,
    MOST_TIMESTEPS,
    ConfigDict,
)
from ddgan_jax.config.shapes import diffused_shape, input_size, resolutions
from ddgan_jax.config.stored import from_stored
from ddgan_jax.config.variants import (
    apply_variant,
    siddm_config,
    tiny,
    train_for_epochs,
    wavediff_config,
)

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "LARGEST",
    "LARGEST_IMAGE",
    "LOCAL_PATHS",
    "MOST_IMAGES",
    "MOST_TIMESTEPS",
    "POINT_SETS",
    "STACKED_SETS",
    "ConfigDict",
    "apply_variant",
    "base_config",
    "diffused_shape",
    "empty_local_paths",
    "from_stored",
    "has_points",
    "input_size",
    "method_title",
    "resolutions",
    "siddm_config",
    "tiny",
    "train_for_epochs",
    "wavediff_config",
]
