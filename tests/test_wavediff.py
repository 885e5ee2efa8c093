"""WaveDiff's losses, its train step and its sampler: DDGAN's, with a term and in another space."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import build, diffusion, haar, pixels, randomness, sampling, schedules
from ddgan_jax.config import wavediff_config
from ddgan_jax.methods import DDGAN, WaveDiff
from ddgan_jax.randomness import Purpose
from tests.test_losses import BATCH, SHAPE, D, G, images, keys, linear_generator, make

pytestmark = pytest.mark.quick

every_order = pytest.mark.parametrize("order", ["lh_hl", "hl_lh"])


def with_weight(weight):
    """WaveDiff on the linear networks."""
    fields = {f.name: getattr(make(), f.name) for f in dataclasses.fields(DDGAN)}
    return WaveDiff(**fields, reconstruction_weight=weight)


@functools.cache
def draws():
    return make().draw(keys(), SHAPE)


def generator_loss(objective, params=G):
    return objective.generator_loss(params, D, images(), None, draws())


def prediction(params):
    """x_{t+1} and x_0' of the draws, in float64."""
    d = draws()
    step = make().schedule.transition(d.t)
    _, x_tp1 = diffusion.q_sample_pairs(step, images(), d.noise_t, d.noise_tp1)
    x_0 = linear_generator(params, x_tp1, d.t, d.z)
    return np.asarray(x_tp1, np.float64), np.asarray(x_0, np.float64)


# ---- losses


@pytest.mark.parametrize("weight", [0.25, 1.0, 3.0])
def test_generator_loss_is_ddgans_and_the_mean_absolute_difference(weight):
    """Equation 1, two ways to one number."""
    loss, metrics = generator_loss(with_weight(weight))
    ddgan, ddgan_metrics = generator_loss(make())
    _, x_0_fake = prediction(G)
    # Over examples, pixels and channels, whatever the time.
    term = sum(np.abs(x_0_fake[n] - images()[n]).sum() for n in range(BATCH)) / images().size
    np.testing.assert_allclose(metrics["g_reconstruction"], term, rtol=1e-6)
    np.testing.assert_allclose(loss, ddgan + weight * term, rtol=1e-6)
    assert metrics["g_loss"] == ddgan_metrics["g_loss"]
    assert metrics.keys() == {"g_loss", "g_reconstruction"}


def test_gradient_of_the_term_is_a_sign():
    """d/dg mean |g x + .. - x_0| = mean sign(..) x, beside DDGAN's own gradient."""
    weight = 2.0
    gradients = [
        jax.grad(lambda params, o=o: generator_loss(o, params)[0])(G)
        for o in (with_weight(weight), make())
    ]
    x_tp1, x_0_fake = prediction(G)
    signs = np.sign(x_0_fake - np.asarray(images(), np.float64))
    expected = {"g": (signs * x_tp1).mean(), "h": (signs.mean((1, 2, 3)) * draws().t).mean()}
    for name, value in expected.items():
        ours = (gradients[0][name] - gradients[1][name]) / weight
        np.testing.assert_allclose(ours, value, rtol=1e-4, atol=1e-6)


def test_weight_of_zero_is_ddgan():
    """Bit for bit, in value and gradient."""
    results = [
        jax.jit(jax.value_and_grad(lambda params, o=o: generator_loss(o, params)[0]))(G)
        for o in (with_weight(0.0), make())
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("r1", [True, False])
def test_discriminator_loss_is_ddgans(r1):
    """Bit for bit, with its terms, its gradient and without one for the generator."""
    results = [
        jax.jit(
            jax.value_and_grad(
                lambda d, g, o=o: o.discriminator_loss(d, g, images(), None, draws(), r1),
                (0, 1),
                has_aux=True,
            )
        )(D, G)
        for o in (with_weight(3.0), make())
    ]
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any(results[0][1][1].values())


# ---- the space


def bands_config(order="lh_hl"):
    config = wavediff_config()
    config.diffusion.haar_order = order
    config.data.image_size, config.data.channels = 4, 1
    return config


@pytest.mark.parametrize(("weight", "method"), [(1.0, WaveDiff), (0.0, DDGAN)])
def test_method_of_a_config(weight, method):
    """Without its term the method is DDGAN on bands."""
    config = bands_config()
    config.objective.reconstruction_weight = weight
    assert type(build.objective(config)) is method
    assert build.step(config, r1=False).space == haar.Bands("lh_hl")


@every_order
def test_train_step_diffuses_the_bands_of_flipped_images(order):
    """The pixels are mirrored first; the noise has the shape of the bands."""
    step, n = build.step(bands_config(order), r1=False), 16
    image = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 1), np.uint8)
    batch = {"image": image, "label": np.zeros(n, np.int32), "index": np.arange(n, dtype=np.int32)}
    key = randomness.run_key(3)
    x_0, _, *drawn = step.draw(jnp.int32(5), batch, key)
    flips = randomness.example_keys(key, jnp.int32(5), Purpose.FLIP, batch["index"])
    unflipped = pixels.to_float(image)
    mirrored = randomness.flip_examples(flips, unflipped)
    assert len(set((mirrored == unflipped).all((1, 2, 3)).tolist())) == 2
    np.testing.assert_allclose(haar.Bands(order).decode(x_0), mirrored, atol=1e-6)
    assert x_0.shape == (n, 2, 2, 4)
    for d in drawn:
        assert {v.shape for v in (d.noise_t, d.noise_tp1, d.noise_posterior)} == {x_0.shape}


@every_order
def test_sampler_runs_on_bands_and_gives_images(order):
    """A chain in the space, decoded; a given image enters it encoded."""
    space, n = haar.Bands(order), 3
    sampler = sampling.Sampler(
        generate=lambda params, x, t, z, labels: params * x,
        schedule=schedules.discrete_schedule("vp", 4, 0.1, 20.0),
        image_shape=(4, 4, 1),
        space=space,
        diffused_shape=(2, 2, 4),
        latent="normal",
        latent_shape=(2,),
        prediction="x_0",
    )
    seeds, labels = np.arange(n, dtype=np.uint32), np.zeros(n, np.int32)
    noise = sampler.noise(seeds)
    assert noise.x_T.shape == (n, 2, 2, 4)
    for start in (0, 2):
        given = jax.random.uniform(jax.random.key(1), (n, 4, 4, 1), minval=-1.0)
        variation = sampling.Variation(x_0=given) if start else sampling.UNVARIED
        drawn = sampler(0.9, seeds, labels, variation, start)
        x_T = noise.x_T
        if start:
            steps = sampler.schedule.sampling_transitions()
            x_T = steps.next_noise[start] * x_T + steps.next_signal[start] * space.encode(given)
        chain = sampler.denoise(0.9, noise._replace(x_T=x_T), labels, start)
        for ours, expected in zip(drawn, chain, strict=True):
            assert ours.shape == (4 - start, n, 4, 4, 1)
            np.testing.assert_allclose(space.encode(ours), expected, atol=1e-5)
