"""The same step on one, two and four devices, by both mappings, for both methods.

SIDDM's networks treat every example by itself: any number of devices, and any number of parts that
a device works on in turn, gives the same gradients for the same batch.

DDGAN's discriminator compares the examples of one device, example n with those of its group, n mod
M for M groups. So that every number of devices forms the same groups, the batch is given in an
order that keeps the members of a group on one device; each example keeps its index, and with it its
draws. Everything else, R1 included, must then be equal.

Gradients are compared, not losses or parameters, which hide factors behind Adam.
"""

import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddgan_jax import build, distributed, train_step
from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.models import discriminators, layers, registry
from tests.methods import config_of

BATCH, GROUP = 16, 4  # examples, and those that DDGAN's discriminator compares with each other
ALONE = (1, "shard_map", 1)
# (method, (devices, mapping, parts of a device's batch)), each compiles a step of its own.
TOGETHER = [
    ("ddgan", (2, "pmap", 1)),
    ("ddgan", (4, "shard_map", 1)),
    ("siddm", (2, "pmap", 2)),
]
# Of float64 but for images and noise: R1's gradient with respect to them is rounded to float32.
TOLERANCE = 1e-6


class PixelByPixel(nn.Module):
    """In the place of networks that take long to compile: two dense layers on each pixel.

    other: z (B, L), labels (B,) or None.
    """

    features: int

    @nn.compact
    def __call__(self, x, t, other=None, dropout_keys=None):
        others = [t[:, None]] if other is None else [t[:, None], other.reshape(len(x), -1)]
        h = nn.Dense(4, name="dense_0")(x)
        h += nn.Dense(4, name="condition")(jnp.concatenate(others, axis=1) / 10)[:, None, None]
        h = layers.Dropout(0.5, name="dropout")(jnp.tanh(h), dropout_keys)
        return nn.Dense(self.features, name="dense_1")(h)


def build_discriminator(config):
    """DDGAN's, which is four blocks, short of three; or logits and both heads of SIDDM."""
    if config.discriminator.name == "unet":
        return PixelByPixel(3)
    return discriminators.Discriminator(1, (2,), 0, 1.0, 4)


def config_for(method, microbatches):
    config = config_of(method, train__microbatches=microbatches, generator__dropout=0.5)
    if method == "ddgan":
        config.objective.r1_gamma = 10.0  # enough that R1 shows in the gradients
    else:
        config.discriminator.dropout = 0.1
    return config


def batch_for(method, num_devices):
    """The same examples for any number of devices; for DDGAN with the same groups on each."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (BATCH, 8, 8, 1), np.uint8)
    order = np.arange(BATCH)
    if method == "ddgan":
        # [group, member] -> [device, member, group of the device]
        order = order.reshape(num_devices, -1, GROUP).swapaxes(1, 2).ravel()
    return {"image": image[order], "label": order % 10, "index": order.astype(np.int32)}


def recording_optimizers(config):
    """Adam that keeps the gradient it was given."""
    adam = (optax.chain(optax.trace(decay=0.0), optax.adam(1e-3)) for _ in range(2))
    return train_step.Optimizers(*adam)


def gradients(state):
    """Those of the last update of both networks."""
    traces = state.generator.opt_state[0].trace, state.discriminator.opt_state[0].trace
    return jax.tree.map(np.asarray, traces)


def initial_state(config, key):
    """Empty optimisers, and parameters nowhere near initial zeros, where gradients vanish."""
    shapes = jax.eval_shape(lambda: build.initial_state(config, key))
    empty = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float64 if leaf.ndim else np.int32), shapes
    )
    rng = np.random.default_rng(0)

    def random(params, size):
        return jax.tree.map(lambda leaf: rng.uniform(-size, size, leaf.shape), params)

    generator, discriminator = empty.generator, empty.discriminator
    return empty._replace(
        generator=generator._replace(params=random(generator.params, 0.5)),
        discriminator=discriminator._replace(params=random(discriminator.params, 1.0)),
    )


@pytest.fixture(scope="module")
def run():
    """run(method, layout) -> (state, metrics) after the first two steps, in float64."""
    results = {}

    def compute(method, num_devices, mapping, microbatches):
        config, key = config_for(method, microbatches), jax.random.key(0)
        step = build.step(config, r1=build.r1_is_due(config, 0))
        devices = jax.devices()[:num_devices]
        mapped = distributed.map_step(step, mapping, devices)
        batch = distributed.place_batch(batch_for(method, num_devices), mapping, devices)
        state = jax.device_put(initial_state(config, key), distributed.replicated(devices))
        for _ in range(2):
            state, metrics = mapped(state, batch, key)
        return jax.block_until_ready((state, metrics))

    def result(method, layout):
        if (method, layout) not in results:
            with (
                pytest.MonkeyPatch.context() as patch,
                jax.enable_x64(True),
                jax.default_matmul_precision("highest"),
            ):
                patch.setattr(build, "optimizers", recording_optimizers)
                patch.setattr(registry, "build_generator", lambda config: PixelByPixel(1))
                patch.setattr(registry, "build_discriminator", build_discriminator)
                results[method, layout] = compute(method, *layout)
        return results[method, layout]

    return result


@pytest.mark.parametrize(("method", "layout"), TOGETHER)
def test_gradients_do_not_depend_on_the_devices(run, method, layout):
    state, metrics = run(method, layout)
    state_alone, metrics_alone = run(method, ALONE)
    for network, reference in zip(gradients(state), gradients(state_alone), strict=True):
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(reference))
        assert largest > 1e-3
        for ours, leaf in zip(jax.tree.leaves(network), jax.tree.leaves(reference), strict=True):
            # Some gradients are 0 but for rounding, like that of a bias which a softmax ignores.
            atol = TOLERANCE * (np.abs(leaf).max() + 1e-6 * largest)
            np.testing.assert_allclose(ours, leaf, rtol=0, atol=atol)
    assert metrics.keys() == metrics_alone.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, metrics_alone[name], rtol=TOLERANCE, err_msg=name)
    assert method == "siddm" or metrics["r1"] > 1  # the penalty is no small part of these gradients


@pytest.mark.parametrize(("method", "layout"), TOGETHER)
def test_replicas_are_bitwise_equal(run, method, layout):
    """State and metrics have no device axis, and every device holds the same bits of them."""
    state, metrics = run(method, layout)
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, run(method, ALONE)[0])
    for leaf in jax.tree.leaves((state, metrics)):
        first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
        assert len(others) == layout[0] - 1
        assert all(first.tobytes() == other.tobytes() for other in others)
    assert state.step == 2


@pytest.mark.parametrize("mapping", ["pmap", "shard_map"])
def test_placement_of_a_batch(mapping):
    """Example i goes to device i // (examples per device)."""
    devices = jax.devices()[:4]
    placed = distributed.place_batch({"index": np.arange(8)}, mapping, devices)["index"]
    assert len(placed.addressable_shards) == 4
    for shard in placed.addressable_shards:
        expected = np.arange(8).reshape(4, 2)[devices.index(shard.device)]
        np.testing.assert_array_equal(np.asarray(shard.data).ravel(), expected)


def test_mapped_examples_keep_their_order():
    for count in (1, 2, 4):
        mapped = distributed.map_examples(lambda scale, x: scale * x, jax.devices()[:count])
        np.testing.assert_array_equal(mapped(3, np.arange(8)), 3 * np.arange(8))


def test_replicated_state_is_made_everywhere():
    devices = jax.devices()[:4]

    def create():
        return {"a": jax.random.normal(jax.random.key(0), (3,)), "b": np.int32(1)}

    made = distributed.create_replicated(create, devices)
    for value in made.values():
        assert value.sharding.is_fully_replicated
        assert value.sharding.device_set == set(devices)
    np.testing.assert_allclose(made["a"], create()["a"], rtol=1e-6)


# ---- devices that do not open


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("", UserError),  # of an assertion in JAX: cuda is wanted and not there
        ("Backend 'cpux' is not in the list of known backends: ['cpu', 'tpu'].", UserError),
        ("INTERNAL: no supported devices found for platform CUDA", UserError),
        ("INTERNAL: Failed to open libtpu.so: cannot open shared object file", UserError),
        ("ABORTED: The TPU is already in use by process with pid 31.", BusyError),
        ("UNAVAILABLE: open(/dev/vfio/0): Device or resource busy", BusyError),
        ("CUDA_ERROR_DEVICE_UNAVAILABLE: devices are busy or unavailable", BusyError),
        ("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory", BusyError),
    ],
)
def test_devices_that_do_not_open(monkeypatch, words, kind):
    """What lasts is a mistake of the user; what another process holds now is asked for again."""

    def fail():
        raise RuntimeError(f"{words} (set JAX_PLATFORMS='' to choose)") if words else AssertionError

    for name in ("devices", "local_devices"):
        monkeypatch.setattr(jax, name, fail)
    for opened in (distributed.all_devices, distributed.local_devices):
        with pytest.raises(UserError) as raised:
            opened()
        assert raised.type is kind
        assert "(set" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--config=configs/mog25.py:siddm_reduced", "--workdir={}/run"),
        ("sample", "--workdir={}/run", "--seeds=0", "--out={}/a.png"),
        ("experiment", "mog25", "--out={}/table"),
    ],
)
@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("JAX_PLATFORMS=cuba", "unset JAX_PLATFORMS"),
        ("JAX_ENABLE_X64=maybe", "invalid truth value"),
    ],
)
def test_variables_of_jax_that_cannot_work_are_one_line(tmp_path, command, variable, words):
    name, value = variable.split("=")
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)  # which nobody calls damaged
    ended = subprocess.run(
        [sys.executable, "-m", "ddgan_jax", *(part.format(tmp_path) for part in command)],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert words in line and value in line
