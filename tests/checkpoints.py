"""Train states that a step determines, and checkpoints of them, for the tests of checkpoints."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.state import DiscriminatorState, GeneratorState, TrainState

CONFIG = {"data": {"name": "digits", "sizes": (8, 16)}, "train": {"rate": 1.6e-4}}
CONFIG_READ = {"data": {"name": "digits", "sizes": [8, 16]}, "train": {"rate": 1.6e-4}}


def make_state(step, width=8, rows=40):
    """A train state on the default device, all of whose arrays are a function of the step."""
    rng = np.random.default_rng(step)

    def noise(like):
        return rng.standard_normal(like.shape).astype(like.dtype) if like.ndim else like + step

    like = {"conv": {"kernel": np.zeros((rows, width), "f4"), "bias": np.zeros(width, "f4")}}
    state = TrainState(
        step=np.zeros((), np.int32),
        generator=GeneratorState(like, like, optax.adam(1e-3).init(like)),
        discriminator=DiscriminatorState(like, optax.adam(1e-3).init(like)),
    )
    return jax.tree.map(lambda leaf: jnp.asarray(noise(leaf)), state)


def abstract(state, sharding=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def open_checkpoints(directory, keep_latest=3, keep_every_steps=0):
    return Checkpoints(directory, keep_latest=keep_latest, keep_every_steps=keep_every_steps)


def save_steps(directory, *steps, **options):
    with open_checkpoints(directory, **options) as checkpoints:
        for step in steps:
            assert checkpoints.save(step, make_state(step), CONFIG)
    return directory


def restore(directory, like=None, step=None):
    """What Checkpoints.restore returns, and the lines it reported."""
    lines = []
    like = abstract(make_state(0)) if like is None else like
    with open_checkpoints(directory) as checkpoints:
        return checkpoints.restore(like, step, report=lines.append), lines


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def in_child(function, *arguments, devices=1, prefix=(), **popen):
    """Starts a function of a test module, on arguments that repr spells, in a Python of its own."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    name = function.__name__
    program = (
        "from ddgan_jax.cli import orbax_messages; orbax_messages.silence(); "
        f"from {function.__module__} import {name}; {name}(*{arguments!r})"
    )
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **popen,
    )
