"""A state of which each device keeps a part: the same bits, in a part of the memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddgan_jax import build, distributed, randomness
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config.checks import validate
from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError
from ddgan_jax.randomness import Purpose
from ddgan_jax.state import DiscriminatorState, GeneratorState, TrainState, may_be_sharded
from ddgan_jax.train_step import Optimizers
from tests.methods import ROOT, GivenDraws, config_of

DEVICES = jax.devices()[:4]
# Divided along the first axis, along the second, and, since neither divides by 4, not at all.
SHAPES = {"a": (8, 3), "b": (3, 4), "c": (3, 5), "d": ()}
OPTIMIZERS = Optimizers(optax.adam(0.1), optax.adam(0.2))


def create():
    def params(seed):
        keys = jax.random.split(jax.random.key(seed), len(SHAPES))
        return {n: jax.random.normal(k, SHAPES[n]) for n, k in zip(SHAPES, keys, strict=True)}

    g, d = params(0), params(1)
    return TrainState(
        jnp.int32(0),
        GeneratorState(g, g, OPTIMIZERS.generator.init(g)),
        DiscriminatorState(d, OPTIMIZERS.discriminator.init(d)),
    )


class Products:
    """An objective whose gradients differ from example to example and from number to number."""

    @staticmethod
    def discriminator_loss(d, g, x_0, labels, draws, r1):
        del labels, draws, r1
        return Products.loss(d, g, x_0)

    @staticmethod
    def generator_loss(g, d, x_0, labels, draws):
        del labels, draws
        return Products.loss(g, d, x_0)

    @staticmethod
    def loss(params, other, x_0):
        terms = [jnp.sin(x_0.sum() * params[n] * (1 + other[n])).sum() for n in SHAPES]
        return sum(terms), {"loss": sum(terms)}


def step(state, batch, key):
    keys = randomness.example_keys(key, state.step, Purpose.DISCRIMINATOR_STEP, batch["index"])
    x_0 = randomness.normal(keys, Purpose.NOISE_T, (2,))
    one_step = GivenDraws(
        Products(), OPTIMIZERS, ema_decay=0.9, flip=False, microbatches=1, r1=False
    )
    return one_step(state, {"x_0": x_0, "d_draws": None, "g_draws": None}, key)


def run(divided, num_steps=5):
    abstract = distributed.abstract_state(create, DEVICES, sharded=divided)
    state = distributed.create_state(create, abstract)
    program = distributed.map_step(step, "shard_map", DEVICES, abstract if divided else None)
    batch = distributed.place_batch({"index": np.arange(8)}, "shard_map", DEVICES)
    for _ in range(num_steps):
        state, metrics = program(state, batch, jax.random.key(3))
    return abstract, state, metrics


@pytest.fixture(scope="module")
def divided():
    return run(divided=True)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, distributed.to_host(a), distributed.to_host(b))


def test_the_same_bits(divided):
    _, whole, metrics = run(divided=False)
    assert_equal(divided[1], whole)
    assert_equal(divided[2], metrics)
    assert not np.array_equal(whole.generator.params["a"], create().generator.params["a"])


def test_each_device_keeps_its_part(divided):
    abstract, state, _ = divided
    parts = {"a": (2, 3), "b": (3, 1), "c": (3, 5), "d": ()}
    adam = state.discriminator.opt_state[0]
    for tree in (state.generator.ema_params, adam.mu, adam.nu):
        for name, array in tree.items():
            assert {shard.data.shape for shard in array.addressable_shards} == {parts[name]}
    for tree in (state.generator.params, state.discriminator.params, adam.count):
        assert all(array.is_fully_replicated for array in jax.tree.leaves(tree))
    layouts = jax.tree.map(lambda x, like: x.sharding == like.sharding, state, abstract)
    assert all(jax.tree.leaves(layouts))


def test_what_may_be_divided_is_what_only_adam_and_the_average_see():
    marked = jax.tree.leaves_with_path(may_be_sharded(create()))
    names = {jax.tree_util.keystr(path[:2]) for path, answer in marked if answer}
    assert names == {".generator.ema_params", ".generator.opt_state", ".discriminator.opt_state"}


def test_whole_again(divided):
    state = divided[1]
    whole = distributed.gathered(state, DEVICES)
    assert all(array.is_fully_replicated for array in jax.tree.leaves(whole))
    assert_equal(whole, state)


@pytest.mark.parametrize("target", [1, 2, 4])
def test_checkpoint_goes_to_any_layout(divided, target, tmp_path):
    state = divided[1]
    with Checkpoints(tmp_path, keep_latest=1, keep_every_steps=0) as checkpoints:
        checkpoints.save(5, state, {})
        checkpoints.wait()
        like = distributed.abstract_state(create, DEVICES[:target], sharded=target > 1)
        step, restored = checkpoints.restore(like, report=print)
    assert step == 5
    assert_equal(restored, state)
    layouts = jax.tree.map(lambda x, wanted: x.sharding == wanted.sharding, restored, like)
    assert all(jax.tree.leaves(layouts))


def test_pmap_cannot():
    with pytest.raises(UserError, match="shard_optimizer needs train.mapping=shard_map"):
        validate(config_of("siddm", train__shard_optimizer=True))


def test_networks_of_a_config_have_the_arrays_to_divide():
    """More than nine tenths of SIDDM's moments and averages for CIFAR-10, on four devices."""
    config = load_config(f"{ROOT}/configs/cifar10_siddm.py")
    create = functools.partial(build.initial_state, config, jax.random.key(0))
    abstract = distributed.abstract_state(create, DEVICES, sharded=True)
    sizes = {True: 0, False: 0}
    marked = may_be_sharded(abstract)
    for array, may in zip(jax.tree.leaves(abstract), jax.tree.leaves(marked), strict=True):
        if may:
            sizes[array.sharding.is_fully_replicated] += array.size
    assert sizes[False] > 0.9 * sum(sizes.values())
