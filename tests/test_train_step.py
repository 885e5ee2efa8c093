"""What surrounds the losses in a train step: learning rates, Adam, moving average, flips, order."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddgan_jax import build, distributed, pixels, randomness, train_step
from ddgan_jax.config import base_config
from ddgan_jax.randomness import Purpose
from ddgan_jax.state import DiscriminatorState, GeneratorState, TrainState
from tests import golden_cases as golden
from tests.methods import GivenDraws
from tests.test_golden_training import training_config

NETWORKS = ("generator", "discriminator")

pytestmark = pytest.mark.quick

# ---- learning rates and optimiser


@pytest.mark.parametrize("step", [0, 1, 194, 195, 196, 175_500, 350_999, 351_000, 351_194])
def test_cosine_staircase(step):
    """The official rate of epoch e, at the first, inner and last steps of CIFAR-10's epochs."""
    config = base_config()
    config.optimizer.decay_interval_steps = 195
    config.optimizer.decay_steps = 1800 * 195
    rate = build.learning_rate(config, "generator")(jnp.int32(step))
    epoch = step // 195
    expected = 1e-5 + (1.6e-4 - 1e-5) * (1 + np.cos(np.pi * epoch / 1800)) / 2
    np.testing.assert_allclose(rate, expected, rtol=1e-5)


@pytest.mark.parametrize("name", golden.names("t") + golden.wavediff_names("wt"))
def test_learning_rates_of_the_reference(name):
    case = golden.load(name)
    config = training_config(case)
    schedules = [build.learning_rate(config, network) for network in NETWORKS]
    rates = [[schedule(step) for schedule in schedules] for step in range(case.meta["n_iter"])]
    expected = case.arrays["lrs"].copy()
    end = config.optimizer.decay_steps
    if end:  # after which torch's cosine rises again
        expected[end:] = config.optimizer.final_learning_rate
    np.testing.assert_allclose(np.array(rates), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_stays_at_its_end(seed):
    """However long a run goes on, also one that is extended, the rate is the final one."""
    rng = np.random.default_rng(seed)
    o = (config := base_config()).optimizer
    o.decay_steps = int(10 ** rng.uniform(0, 6))
    o.decay_interval_steps = int(rng.integers(1, o.decay_steps + 1))
    o.final_learning_rate = float(10 ** rng.uniform(-8, -4))
    schedule = jax.jit(jax.vmap(build.learning_rate(config, "generator")))
    after = rng.integers(0, 2**31 - o.decay_steps, 1_000) + o.decay_steps
    last = np.float32(o.final_learning_rate)
    rates = schedule(np.append(after, [o.decay_steps, 2 * o.decay_steps]).astype(np.int32))
    np.testing.assert_array_equal(rates, last)
    before = schedule(np.sort(rng.integers(0, o.decay_steps, 1_000)).astype(np.int32))
    assert (np.diff(before) <= 0).all() and before[-1] >= last  # and it never rises


@pytest.mark.parametrize("steps", [10, 1_000])
def test_the_schedule_of_the_classifier_stays_at_its_end(steps):
    """That of `evaluation.classifier`, which comes from optax."""
    schedule = optax.cosine_onecycle_schedule(steps, 1e-3)
    after = [float(schedule(steps + more)) for more in (0, 1, 7, steps, 10**6)]
    assert len(set(after)) == 1 and after[0] <= 1e-3 / 100


def test_without_decay_the_rate_is_constant():
    schedule = build.learning_rate(base_config(), "generator")
    assert {float(schedule(step)) for step in (0, 1, 10**6, 2**31 - 1)} == {1.6e-4}


def test_adam_follows_the_staircase():
    """Four updates against Adam written out in float64 numpy."""
    config = base_config()
    o = config.optimizer
    o.decay_steps, o.decay_interval_steps, o.beta1, o.beta2 = 4, 2, 0.5, 0.9
    gradients = np.random.default_rng(0).standard_normal((4, 3)) * [1e-4, 1.0, 100.0]
    for optimizer, network in zip(build.optimizers(config), NETWORKS, strict=True):
        state = optimizer.init(jnp.zeros(3))
        schedule = build.learning_rate(config, network)
        mean, square = np.zeros(3), np.zeros(3)
        for i, g in enumerate(gradients):
            update, state = optimizer.update(jnp.asarray(g, jnp.float32), state)
            mean, square = 0.5 * mean + 0.5 * g, 0.9 * square + 0.1 * g**2
            unbiased = np.sqrt(square / (1 - 0.9 ** (i + 1)))
            expected = -schedule(i) * mean / (1 - 0.5 ** (i + 1)) / (unbiased + 1e-8)
            np.testing.assert_allclose(update, expected, rtol=1e-5)


def test_steps_with_r1():
    config = base_config()
    config.objective.r1_interval = 3
    assert [build.r1_is_due(config, step) for step in range(5)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    config.objective.r1_gamma = 0.0
    assert not build.r1_is_due(config, 0)


# ---- the order of a step


class Quadratic:
    """Losses of two numbers: d and g each know the other's current value."""

    def draw(self, keys, image_shape):
        return jax.vmap(jax.random.uniform)(keys)

    def discriminator_loss(self, d, g, x_0, labels, draws, r1):
        return (d * (g + draws.mean()), {"d_draw": draws.mean()})

    def generator_loss(self, g, d, x_0, labels, draws):
        return (g * (d + draws.mean()), {"g_draw": draws.mean(), "x_0": x_0})


def with_quadratic(optimizers, decay=0.9, flip=False, r1=False, kind=train_step.TrainStep):
    return kind(Quadratic(), optimizers, decay, flip, microbatches=1, r1=r1)


def on_one_device(step):
    return jax.jit(
        jax.vmap(step, in_axes=(None, 0, None), out_axes=None, axis_name=distributed.AXIS)
    )


def sgd_state(g, d, ema):
    sgd = optax.sgd(0.1).init(jnp.float32(0))
    return TrainState(
        jnp.int32(0),
        GeneratorState(jnp.float32(g), jnp.float32(ema), sgd),
        DiscriminatorState(jnp.float32(d), sgd),
    )


def test_order_of_updates_and_moving_average():
    """D first, G against the new D, each with draws of its own; then the average.

    After the first update the average is the parameters, whatever it was; later it decays.
    """
    optimizers = train_step.Optimizers(optax.sgd(0.1), optax.sgd(0.1))
    decay = 0.9
    draws = np.array([[0.5, 1.5], [2.0, 4.0]], np.float32)  # of D and of G

    def update(state, x_0, key):
        one_step = with_quadratic(optimizers, decay, r1=True, kind=GivenDraws)
        batch = {"x_0": x_0, "d_draws": draws[0], "g_draws": draws[1]}
        return one_step(state, batch, jax.random.key(0))

    step = on_one_device(update)
    g, d, ema = 2.0, -1.0, 1e6
    state = sgd_state(g, d, ema)
    for i in range(3):
        state, metrics = step(state, np.zeros((1, 2)), None)
        d -= 0.1 * (g + 1.0)
        g -= 0.1 * (d + 3.0)
        ema = g if i == 0 else decay * ema + (1 - decay) * g
        ours = (state.generator.params, state.discriminator.params, state.generator.ema_params)
        np.testing.assert_allclose(ours, (g, d, ema), rtol=1e-5)
        assert state.step == i + 1
        if i == 0:
            assert state.generator.ema_params == state.generator.params
        assert (metrics["d_draw"], metrics["g_draw"]) == (1.0, 3.0)


def test_gradients_and_metrics_are_means_over_devices():
    """Two devices, here two rows of a mapped axis, with losses of different slopes."""
    optimizers = train_step.Optimizers(optax.sgd(0.1), optax.sgd(0.1))

    def update(state, draws, key):
        batch = {"x_0": jnp.zeros((1, 1)), "d_draws": draws, "g_draws": draws}
        return with_quadratic(optimizers, kind=GivenDraws)(state, batch, jax.random.key(0))

    state, metrics = on_one_device(update)(
        sgd_state(2.0, -1.0, 0.0), np.array([[1.0], [5.0]]), None
    )
    np.testing.assert_allclose(state.discriminator.params, -1.0 - 0.1 * (2.0 + 3.0), rtol=1e-6)
    assert metrics["d_draw"] == 3.0


# ---- draws of a step


def step_of(flip):
    """The whole train step, with the losses of two numbers."""
    return on_one_device(with_quadratic(build.optimizers(base_config()), flip=flip))


def seen(step, image, index, key=0, at_step=0):
    """(images that the losses saw, as uint8; mean draws of both networks)."""
    optimizers = build.optimizers(base_config())
    one = jnp.float32(1)
    state = TrainState(
        jnp.int32(at_step),
        GeneratorState(one, one, optimizers.generator.init(one)),
        DiscriminatorState(one, optimizers.discriminator.init(one)),
    )
    batch = {"image": image, "label": np.zeros(len(image), np.int32), "index": np.asarray(index)}
    batch = {name: values[None] for name, values in batch.items()}
    metrics = step(state, batch, jax.random.key(key))[1]
    return pixels.to_uint8(metrics["x_0"]), (float(metrics["d_draw"]), float(metrics["g_draw"]))


def test_flips():
    """Each image is itself or mirrored, half of them, by its index, and anew in every step."""
    count = 1_000
    image = np.random.default_rng(0).integers(0, 256, (count, 2, 3, 1), np.uint8)
    step = step_of(flip=True)
    x_0, _ = seen(step, image, np.arange(count))

    def is_mirrored(x_0):
        mirrored = (x_0 == image[:, :, ::-1]).all((1, 2, 3))
        itself = (x_0 == image).all((1, 2, 3))
        assert (mirrored | itself).all()
        return mirrored & ~itself

    flips = is_mirrored(x_0)
    assert abs(flips.sum() - count / 2) < 5 * np.sqrt(count) / 2

    order = np.random.default_rng(1).permutation(count)
    np.testing.assert_array_equal(seen(step, image[order], order)[0], x_0[order])
    later, _ = seen(step, image, np.arange(count), at_step=1)
    assert 0.3 < (is_mirrored(later) != flips).mean() < 0.7

    unflipped, _ = seen(step_of(flip=False), image, np.arange(count))
    np.testing.assert_array_equal(unflipped, image)


def test_draws_depend_on_seed_step_and_index():
    step, image = step_of(flip=False), np.zeros((8, 1, 1, 1), np.uint8)
    _, draws = seen(step, image, np.arange(8))
    assert seen(step, image, np.arange(8))[1] == draws
    assert np.allclose(seen(step, image, np.arange(8)[::-1])[1], draws)  # the same set of examples
    others = [
        seen(step, image, np.arange(8), key=1)[1],
        seen(step, image, np.arange(8), at_step=1)[1],
        seen(step, image, np.arange(8, 16))[1],
    ]
    assert len({draws[0], draws[1], *(d for pair in others for d in pair)}) == 8


def test_keys_differ_by_purpose():
    index = np.arange(100)
    data = [
        jax.random.key_data(randomness.example_keys(jax.random.key(s), step, purpose, index))
        for s in (0, 1)
        for step in (0, 1)
        for purpose in Purpose
    ]
    keys = np.concatenate(data)
    assert len(np.unique(keys, axis=0)) == len(keys) == 2 * 2 * len(Purpose) * 100


# ---- images and initial state


def test_float_images_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    floats = np.asarray(train_step.to_float_images(levels))
    assert (floats.min(), floats.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(pixels.to_uint8(floats), levels)


def test_initial_state():
    """The average starts as a copy, the optimisers empty, and the seed alone decides."""

    def init_params(key):
        weights = jax.random.normal(key, (2, 3))
        return {"w": weights[0]}, {"w": weights[1]}

    optimizers = build.optimizers(base_config())
    state, same, other = (
        train_step.initial_state(*init_params(randomness.run_key(seed)), optimizers)
        for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, state, same)
    assert state.step == 0
    assert jnp.array_equal(state.generator.params["w"], state.generator.ema_params["w"])
    for network in (state.generator, state.discriminator):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(network.opt_state))
    for network in ("generator", "discriminator"):
        w, v = (getattr(s, network).params["w"] for s in (state, other))
        assert not jnp.array_equal(w, v)
