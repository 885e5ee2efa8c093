"""A seed means the same whatever JAX's variables say, in chunks of any size, on any devices."""

import contextlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import build, distributed, models, randomness
from ddgan_jax.inference import drawing
from tests.methods import config_of, random_params

ROOT = Path(__file__).parents[1]
SEEDS = [0, 7, 2**32 - 1]
USUAL = ("threefry2x32", True, False)
ODD = ("rbg", False, True)
SETTINGS = list(itertools.product(("threefry2x32", "rbg", "unsafe_rbg"), (True, False), (0, 1)))
LAYOUTS = list(itertools.product((1, 3), (1, 2, 4)))  # images at a time on each of so many devices


@contextlib.contextmanager
def switches(implementation, partitionable, x64):
    """The state of a process that was started with JAX_DEFAULT_PRNG_IMPL and so on."""
    with (
        jax.default_prng_impl(implementation),
        jax.threefry_partitionable(partitionable),
        jax.enable_x64(bool(x64)),
    ):
        yield


@pytest.fixture(scope="module")
def draw():
    """draw(chunk_size, num_devices) -> the bytes of the images of SEEDS."""
    config = config_of("siddm", diffusion__num_timesteps=2)
    params = random_params(models.abstract_params(config)[0])

    def draw(chunk_size, num_devices):
        config.sampling.chunk_size = chunk_size
        devices = distributed.all_devices()[:num_devices]
        placed = jax.device_put(params, distributed.replicated(devices))
        drawn = drawing.draw_all(
            drawing.make_drawer(build.sampler(config), devices, config.sampling.chunk_size),
            placed,
            drawing.each_class(config.data.num_classes, SEEDS),
        )
        assert drawn.dtype == np.uint8 and len({image.tobytes() for image in drawn}) == len(SEEDS)
        return drawn.tobytes()

    return draw


@pytest.fixture(scope="module")
def expected(draw):
    with switches(*USUAL):
        return draw(3, 1)


@pytest.mark.parametrize(
    ("setting", "layout"),
    [(setting, (3, 1)) for setting in SETTINGS] + [(ODD, layout) for layout in LAYOUTS],
)
def test_images_of_seeds(draw, expected, setting, layout):
    with switches(*setting):
        assert draw(*layout) == expected


def test_drawing_leaves_the_switches_of_its_caller_alone(draw):
    """Also between two chunks, where the caller's own code runs."""
    config = config_of("siddm", diffusion__num_timesteps=2, sampling__chunk_size=1)
    devices = distributed.all_devices()[:1]
    params = random_params(models.abstract_params(config)[0])
    drawer = drawing.make_drawer(build.sampler(config), devices, config.sampling.chunk_size)
    with switches(*ODD):
        for _ in drawer(params, drawing.each_class(config.data.num_classes, SEEDS)):
            assert jnp.arange(3.0).dtype == jnp.float64
            assert jax.random.key_data(jax.random.key(0)).shape == (4,)  # of rbg
        assert jnp.arange(3.0).dtype == jnp.float64


@pytest.mark.parametrize("setting", [USUAL, ODD])
def test_key_of_a_seed_is_that_of_the_default_generator(setting):
    usual = [jax.random.key_data(jax.random.key(seed, impl="threefry2x32")) for seed in SEEDS]
    with switches(*setting):
        np.testing.assert_array_equal(
            [jax.random.key_data(randomness.run_key(seed)) for seed in SEEDS], usual
        )
        together = jax.vmap(randomness.run_key)(np.array(SEEDS, np.uint32))
        np.testing.assert_array_equal(jax.random.key_data(together), usual)


# A run, its pictures and its samples, in a process of their own. Prints the checksum of all.
PROGRAM = """
import hashlib, sys
import jax, numpy as np
from ddgan_jax.cli.arguments import parse_config
from ddgan_jax.inference.load import from_run
from ddgan_jax.training.loop import train

settings = ("train.num_steps=3", "train.batch_size=32", "generator.width=16", "log.num_samples=16",
            "discriminator.width=16", "log.every_steps=1", "sampling.chunk_size=16")
config = parse_config("configs/mog25.py:siddm_reduced", [f"--config.{s}" for s in settings])
state = train(config, sys.argv[1])
digest = hashlib.sha256()
for leaf in jax.tree.leaves(state):
    digest.update(np.asarray(leaf).tobytes())
for kind in ("ema", "raw"):
    digest.update(from_run(sys.argv[1], kind=kind, report=print).sample(range(5)).tobytes())
print("digest", digest.hexdigest())
"""


def test_course_of_a_run(tmp_path):
    """Parameters, moments and samples, bit by bit."""
    hostile = {
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_ENABLE_X64": "1",
        "JAX_RANDOM_SEED_OFFSET": "5",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    }
    digests = set()
    for name, variables in (("usual", {}), ("hostile", hostile)):
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / name],
            cwd=ROOT,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stderr
        digests.add(ended.stdout.splitlines()[-1])
    (digest,) = digests
    assert digest.startswith("digest ")
