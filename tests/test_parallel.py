"""The same step on one, two and four devices, by both mappings.

The discriminator compares the examples of one device, example n with those of its group, n mod M
for M groups. So that every number of devices forms the same groups, the batch is given in an order
that keeps the members of a group on one device; each example keeps its index, and with it its
draws. Everything else, R1 included, must then be equal: gradients are compared, not losses or
parameters, which hide factors behind Adam.
"""

import jax
import numpy as np
import optax
import pytest

from ddgan_jax import parallel, train_step
from ddgan_jax.config import base_config

BATCH, GROUP = 16, 4  # examples, and those that the discriminator compares with each other
ALONE = (1, "shard_map")
TOGETHER = [(2, "pmap"), (4, "shard_map")]  # each compiles a step of its own
# Of float64 but for images and noise: R1's gradient with respect to them is rounded to float32.
TOLERANCE = 1e-6


def tiny_config():
    config = base_config()
    config.data.image_size, config.data.channels = 8, 1
    config.objective.r1_gamma = 10.0  # enough that R1 shows in the gradients
    g, d = config.generator, config.discriminator
    g.base_channels, g.channel_multipliers, g.num_res_blocks = 4, (1,), 1
    g.attention_resolutions, g.progressive_input = (4,), "none"
    g.latent_dim, g.latent_embedding_dim, g.latent_layers = 4, 4, 0
    d.base_channels, d.time_embedding_dim = 1, 4
    return config


def batch_for(num_devices):
    """The same examples for any number of devices, with the same groups on each."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (BATCH, 8, 8, 1), np.uint8)
    # [group, member] -> [device, member, group of the device]
    order = np.arange(BATCH).reshape(num_devices, -1, GROUP).swapaxes(1, 2).ravel()
    return {"image": image[order], "index": order.astype(np.int32)}


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
    shapes = jax.eval_shape(lambda: train_step.init_state(config, key))
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
    """run(num_devices, mapping) -> (state, metrics) after the first two steps, in float64."""
    results = {}
    config = tiny_config()
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(train_step, "make_optimizers", recording_optimizers)
        step = train_step.make_train_step(config, r1=True)
        key = jax.random.key(0)
        state = initial_state(config, key)

    def result(num_devices, mapping):
        if (num_devices, mapping) not in results:
            devices = jax.devices()[:num_devices]
            with jax.enable_x64(True), jax.default_matmul_precision("highest"):
                mapped = parallel.map_step(step, mapping, devices)
                batch = parallel.place_batch(batch_for(num_devices), mapping, devices)
                after = jax.device_put(state, parallel.replicated(devices))
                for _ in range(2):
                    after, metrics = mapped(after, batch, key)
                results[num_devices, mapping] = jax.block_until_ready((after, metrics))
        return results[num_devices, mapping]

    return result


@pytest.mark.parametrize(("num_devices", "mapping"), TOGETHER)
def test_gradients_do_not_depend_on_the_devices(run, num_devices, mapping):
    state, metrics = run(num_devices, mapping)
    state_alone, metrics_alone = run(*ALONE)
    for network, reference in zip(gradients(state), gradients(state_alone), strict=True):
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(reference))
        for ours, leaf in zip(jax.tree.leaves(network), jax.tree.leaves(reference), strict=True):
            # Some gradients are 0 but for rounding, like that of a bias which a softmax ignores.
            atol = TOLERANCE * (np.abs(leaf).max() + 1e-6 * largest)
            np.testing.assert_allclose(ours, leaf, rtol=0, atol=atol)
    assert metrics.keys() == metrics_alone.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, metrics_alone[name], rtol=TOLERANCE, err_msg=name)
    assert metrics["r1"] > 1  # the penalty is no small part of these gradients


@pytest.mark.parametrize(("num_devices", "mapping"), TOGETHER)
def test_replicas_are_bitwise_equal(run, num_devices, mapping):
    """State and metrics have no device axis, and every device holds the same bits of them."""
    state, metrics = run(num_devices, mapping)
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, run(*ALONE)[0])
    for leaf in jax.tree.leaves((state, metrics)):
        first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
        assert len(others) == num_devices - 1
        assert all(first.tobytes() == other.tobytes() for other in others)
    assert state.step == 2


@pytest.mark.parametrize("mapping", ["pmap", "shard_map"])
def test_placement_of_a_batch(mapping):
    """Example i goes to device i // (examples per device)."""
    devices = jax.devices()[:4]
    placed = parallel.place_batch({"index": np.arange(8)}, mapping, devices)["index"]
    assert len(placed.addressable_shards) == 4
    for shard in placed.addressable_shards:
        expected = np.arange(8).reshape(4, 2)[devices.index(shard.device)]
        np.testing.assert_array_equal(np.asarray(shard.data).ravel(), expected)


def test_mapped_examples_keep_their_order():
    for count in (1, 2, 4):
        mapped = parallel.map_examples(lambda scale, x: scale * x, jax.devices()[:count])
        np.testing.assert_array_equal(mapped(3, np.arange(8)), 3 * np.arange(8))


def test_replicated_state_is_made_everywhere():
    devices = jax.devices()[:4]

    def create():
        return {"a": jax.random.normal(jax.random.key(0), (3,)), "b": np.int32(1)}

    made = parallel.create_replicated(create, devices)
    abstract = parallel.abstract_replicated(create, devices)
    for name, value in made.items():
        assert value.sharding.is_fully_replicated
        assert value.sharding.device_set == set(devices)
        assert (value.shape, value.dtype) == (abstract[name].shape, abstract[name].dtype)
        assert value.sharding.is_equivalent_to(abstract[name].sharding, value.ndim)
    np.testing.assert_allclose(made["a"], create()["a"], rtol=1e-6)
