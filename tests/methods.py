"""All methods on the digits, with the smallest networks that still have all kinds of parts."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ddgan_jax.config import ConfigDict
from ddgan_jax.config.files import load_config
from ddgan_jax.sampling import UNVARIED, Trajectory
from ddgan_jax.state import Params, PyTree
from ddgan_jax.train_step import TrainStep

ROOT = Path(__file__).parents[1]

# Compiling is what takes time, by the number of layers.
SMALLEST: Mapping[str, Mapping[str, Any]] = {
    "ddgan": {
        "generator.channel_multipliers": (1,),
        "generator.attention_resolutions": (8,),
        "generator.latent_layers": 0,
    },
    "wavediff": {"generator.latent_layers": 0},
    "siddm": {
        f"{network}.{field}": value
        for network in ("generator", "discriminator")
        for field, value in {
            "channel_multipliers": (1,),
            "attention_resolutions": (),
            "updown_order": "imagen",  # which resamples even at one level
        }.items()
    },
}

every_method = pytest.mark.parametrize("method", SMALLEST)


def config_file(method: str) -> str:
    """The config file of a method, in its tiny variant, from the root of the project."""
    return f"configs/digits_{method}.py:tiny"


def config_of(method: str, **changes: Any) -> ConfigDict:
    """The smallest config of a method; changes are spelled section__field=value."""
    config = load_config(f"{ROOT}/{config_file(method)}")
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    config.update_from_flattened_dict(SMALLEST[method] | changes)
    return config


class GivenDraws(TrainStep):
    """The train step with the draws of both updates, and the float images, in its batch."""

    def draw(self, step, batch, key):
        return batch["x_0"], None, batch["d_draws"], batch["g_draws"]


def random_params(template: PyTree, seed: int = 0) -> Params:
    """Parameters of the sizes that a trained network has: kernels keep variance, scales near 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        n = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return n / np.float32(math.sqrt(math.prod(leaf.shape[:-1])))
        return 1 + n / 10 if path[-1].key == "scale" else n / 10

    return jax.tree.map_with_path(draw, template)


def gray_drawer(sampler, devices, chunk_size, *, start=0, trajectory=False):
    """What `drawing.make_drawer` returns, without a program: every image is gray."""

    def draw(params, request, variation=UNVARIED):
        count, steps = len(request.seeds), sampler.schedule.num_timesteps - start
        if trajectory:
            x = np.zeros((count, steps, *sampler.image_shape), np.float32)
            yield Trajectory(x, x)
        else:
            yield np.full((count, *sampler.image_shape), 128, np.uint8)

    return draw
