"""The objective's equations and variants, on networks of one line each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import diffusion, losses, schedules
from ddgan_jax.config import base_config
from ddgan_jax.methods import DDGAN, SIDDM
from ddgan_jax.models.discriminators import minibatch_stddev
from ddgan_jax.state import Judgement

pytestmark = pytest.mark.quick

SHAPE = (2, 2, 1)
BATCH = 8


def linear_generator(params, x, t, z, labels=None, keys=None):
    """g x + h t + z_0."""
    return params["g"] * x + params["h"] * _column(t) + _column(z[:, 0])


def linear_discriminator(params, x_t, t, x_tp1, labels=None, keys=None):
    """Sum over pixels of a x_t + b x_{t+1}, plus c t."""
    return Judgement((params["a"] * x_t + params["b"] * x_tp1).sum((1, 2, 3)) + params["c"] * t)


def _column(v):
    return v[:, None, None, None]


G = {"g": 0.7, "h": 0.1}
D = {"a": 0.3, "b": -0.2, "c": 0.05}


def make(**fields):
    """DDGAN on the linear networks, T = 4; of the base config what is its objective."""
    defaults = base_config().objective.to_dict() | {
        "generate": linear_generator,
        "discriminate": linear_discriminator,
        "schedule": schedules.discrete_schedule("vp", 4, 0.1, 20.0),
        "r1_gamma": 0.5,
        "latent": "normal",
        "latent_shape": (3,),
        "generator_dropout": False,
        "discriminator_dropout": False,
        "augmentation_schedule": None,
    }
    fields = defaults | fields
    method = SIDDM if fields["afd_weight"] else DDGAN
    return method(**{f.name: fields[f.name] for f in dataclasses.fields(method)})


def keys(seed=0, count=BATCH):
    return jax.random.split(jax.random.key(seed), count)


def images(count=BATCH):
    return jax.random.uniform(jax.random.key(7), (count, *SHAPE), minval=-1.0)


def softplus(x):
    return np.log1p(np.exp(x))


# ---- equations


def test_losses_are_equations_1_to_3():
    """Both losses, computed step by step in float64 numpy from the same draws."""
    objective, x_0 = make(), np.asarray(images(), np.float64)
    draws = objective.draw(keys(), SHAPE)
    d = jax.tree.map(lambda v: np.asarray(v, np.float64), draws)
    s, t = objective.schedule, np.asarray(draws.t)

    def at(table, t):
        return _column(np.asarray(table, np.float64)[t])

    x_t = at(s.sqrt_alphas_cumprod, t) * x_0 + at(s.sigmas_cumprod, t) * d.noise_t
    x_tp1 = at(s.sqrt_alphas, t + 1) * x_t + at(s.sigmas, t + 1) * d.noise_tp1
    x_0_fake = G["g"] * x_tp1 + G["h"] * _column(d.t) + _column(d.z[:, 0])
    mean = at(s.posterior_mean_coef1, t) * x_0_fake + at(s.posterior_mean_coef2, t) * x_tp1
    fake = mean + at(np.sqrt(s.posterior_variance), t) * d.noise_posterior

    def logits(x):
        return (D["a"] * x + D["b"] * x_tp1).sum((1, 2, 3)) + D["c"] * t

    expected = {
        "d_loss_real": softplus(-logits(x_t)).mean(),
        "d_loss_fake": softplus(logits(fake)).mean(),
        "d_logit_real": logits(x_t).mean(),
        "d_logit_fake": logits(fake).mean(),
        # The gradient of a linear discriminator is a everywhere: gamma / 2 times 4 pixels of a^2.
        "r1": 0.5 * objective.r1_gamma * 4 * D["a"] ** 2,
    }
    loss, metrics = objective.discriminator_loss(D, G, images(), None, draws, True)
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
    terms = ("d_loss_real", "d_loss_fake", "r1")
    np.testing.assert_allclose(loss, sum(expected[name] for name in terms), rtol=1e-5)

    without, metrics = objective.discriminator_loss(D, G, images(), None, draws, False)
    assert "r1" not in metrics
    np.testing.assert_allclose(without, loss - expected["r1"], rtol=1e-5)

    loss, metrics = objective.generator_loss(G, D, images(), None, draws)
    np.testing.assert_allclose(loss, softplus(-logits(fake)).mean(), rtol=1e-5)
    assert metrics == {"g_loss": loss}


def test_discriminator_update_leaves_the_generator_alone():
    objective = make()
    draws = objective.draw(keys(), SHAPE)
    gradients, _ = jax.grad(objective.discriminator_loss, argnums=(0, 1), has_aux=True)(
        D, G, images(), None, draws, True
    )
    assert all(value != 0 for value in gradients[0].values())
    assert all(value == 0 for value in gradients[1].values())
    gradients, _ = jax.grad(objective.generator_loss, has_aux=True)(G, D, images(), None, draws)
    assert all(value != 0 for value in gradients.values())


@pytest.mark.parametrize("method", [DDGAN, SIDDM])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_losses_of_huge_logits(method, size):
    """softplus is linear on one side and 0 on the other; nothing overflows, gradients neither."""
    x_0 = images(2)

    def discriminate(params, x, t, x_tp1, labels, keys):
        """The logits, and 0 of everything that would make them depend on the images."""
        return Judgement(params + 0 * x.sum((1, 2, 3)))

    objective = make(discriminate=discriminate)
    if method is SIDDM:
        switched_off = base_config().objective.to_dict() | {"joint": False}
        fields = vars(objective) | switched_off
        objective = SIDDM(**{f.name: fields[f.name] for f in dataclasses.fields(SIDDM)})
    draws = objective.draw(keys(count=2), SHAPE)
    logits = jnp.array([size, 0.0])

    def d_loss(name, logits):
        return objective.discriminator_loss(logits, G, x_0, None, draws, False)[1][name]

    for loss, sign in (
        (lambda logits: d_loss("d_loss_real", logits), -1),
        (lambda logits: d_loss("d_loss_fake", logits), 1),
        (lambda logits: objective.generator_loss(G, logits, x_0, None, draws)[0], -1),
    ):
        value, gradient = jax.value_and_grad(loss)(logits)
        np.testing.assert_allclose(value, (max(sign * size, 0) + np.log(2)) / 2, rtol=1e-6)
        expected = [sign / 2 if sign * size > 0 else 0, sign / 4]
        np.testing.assert_allclose(gradient, expected, atol=1e-7)


# ---- R1


def test_r1_of_a_quadratic():
    """D = a ||x||^2 / 2 has gradient a x: R1 and its derivative in a are known."""
    x = images()
    squares = jnp.square(x).sum((1, 2, 3))

    def penalty(a):
        return losses.r1_penalty(lambda x: Judgement(0.5 * a * jnp.square(x).sum((1, 2, 3))), x)

    (value, judgement), gradient = jax.value_and_grad(penalty, has_aux=True)(3.0)
    np.testing.assert_allclose(value, 0.5 * 9 * squares.mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient, 3 * squares.mean(), rtol=1e-6)
    np.testing.assert_allclose(judgement.logits, 0.5 * 3 * squares, rtol=1e-6)


def test_r1_has_cross_terms():
    """D_b = x_b mean(x): a gradient of the batch's sum sees every example twice, once each way.

    d/dx_b sum_c x_c mean(x) = 2 mean(x), where example by example it would be mean(x) + x_b / B.
    """
    x = jax.random.normal(jax.random.key(0), (BATCH, 1))
    penalty, _ = losses.r1_penalty(lambda x: Judgement(x[:, 0] * x.mean()), x)
    np.testing.assert_allclose(penalty, 0.5 * (2 * x.mean()) ** 2, rtol=1e-5)


def test_r1_of_minibatch_stddev_against_finite_differences():
    """The discriminator's own comparison of examples, in float64."""
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((8, 1, 2, 1))

        def discriminate(x):
            return jnp.square(minibatch_stddev(x)).sum((1, 2, 3)) * (1 + x.sum((1, 2, 3)))

        penalty, _ = losses.r1_penalty(lambda x: Judgement(discriminate(x)), jnp.asarray(x))
        step = 1e-5
        gradient = np.zeros_like(x)
        total = jax.jit(lambda x: discriminate(x).sum())
        for i in np.ndindex(x.shape):
            high, low = x.copy(), x.copy()
            high[i] += step
            low[i] -= step
            gradient[i] = (total(high) - total(low)) / (2 * step)
        expected = 0.5 * np.square(gradient).sum((1, 2, 3)).mean()
        np.testing.assert_allclose(penalty, expected, rtol=1e-8)


def test_r1_where_the_discriminator_is_flat():
    """At a zero gradient the penalty's own gradient is zero: a norm's would not be a number."""
    x = images()

    def penalty(a):
        return losses.r1_penalty(lambda x: Judgement(a * x.sum((1, 2, 3))), x)[0]

    assert jax.value_and_grad(penalty)(0.0) == (0.0, 0.0)


# ---- draws


def test_draws_follow_the_example():
    """Reordering or cutting the keys reorders or cuts the draws: nothing depends on the batch."""
    objective = make(
        generator_dropout=True,
        discriminator_dropout=True,
        augmentation_schedule=make().schedule,
        afd_weight=1.0,
        afd_form="code",
    )
    order = np.array([5, 0, 3])
    draws, some = objective.draw(keys(), SHAPE), objective.draw(keys()[order], SHAPE)
    for whole, part in zip(jax.tree.leaves(draws), jax.tree.leaves(some), strict=True):
        assert jnp.array_equal(whole[order], part)


def test_draws_are_independent():
    """No two draws of an update share their numbers; each is standard normal."""
    schedule = make().schedule
    objective = make(
        latent_shape=(4,), augmentation_schedule=schedule, afd_weight=1.0, afd_form="code"
    )
    draws = objective.draw(keys(count=5_000), SHAPE)
    noises = [draws.noise_t, draws.noise_tp1, draws.noise_posterior, draws.z]
    noises += [draws.augmentation.noise_real, draws.augmentation.noise_fake, draws.noise_afd]
    columns = np.concatenate([np.asarray(n).reshape(5_000, 4) for n in noises], axis=1)
    error = 5 / np.sqrt(5_000)  # 5 standard errors of a mean and of a correlation
    assert np.abs(columns.mean(0)).max() < error
    assert np.abs(columns.var(0) - 1).max() < np.sqrt(2) * error
    assert np.abs(np.corrcoef(columns.T) - np.eye(28)).max() < error
    times = np.corrcoef(np.asarray(draws.t), np.asarray(draws.augmentation.t))
    assert abs(times[0, 1]) < error


# ---- variants


@pytest.mark.parametrize("num_timesteps", [1, 2, 8])
def test_number_of_steps(num_timesteps):
    schedule = schedules.discrete_schedule("vp", num_timesteps, 0.1, 20.0)
    draws = make(schedule=schedule).draw(keys(count=200), SHAPE)
    assert set(np.asarray(draws.t).tolist()) == set(range(num_timesteps))


def test_no_latent():
    """z is zero, so that nothing random is left in what the generator makes of x_{t+1}."""
    draws = make(latent="none").draw(keys(), SHAPE)
    assert draws.z.shape == (BATCH, 3)
    assert not draws.z.any()
    assert make().draw(keys(), SHAPE).z.all()


def seen_by_discriminator(objective, draws):
    """(x_t, t, x_{t+1}) of the real and of the fake pass."""
    seen = []

    def discriminate(params, *inputs):
        seen.append(inputs[:3])
        return linear_discriminator(params, *inputs)

    objective = dataclasses.replace(objective, discriminate=discriminate)
    objective.discriminator_loss(D, G, images(), None, draws, False)
    return seen


@pytest.mark.parametrize("prediction", ["x_0", "x_t", "noise"])
def test_what_the_generator_predicts(prediction):
    """Direct denoising passes the output on; a noise is turned into the x_0 that explains it."""
    objective = make(prediction=prediction)
    draws = objective.draw(keys(), SHAPE)
    (real, _, _), (fake, t, x_tp1) = seen_by_discriminator(objective, draws)
    step = objective.schedule.transition(draws.t)
    x_t, expected_x_tp1 = diffusion.q_sample_pairs(step, images(), draws.noise_t, draws.noise_tp1)
    assert jnp.array_equal(real, x_t)
    assert jnp.array_equal(x_tp1, expected_x_tp1)
    assert jnp.array_equal(t, draws.t)
    output = linear_generator(G, x_tp1, draws.t, draws.z)
    if prediction == "noise":
        output = (x_tp1 - _column(step.next_noise) * output) / _column(step.next_signal)
    if prediction != "x_t":
        output = diffusion.posterior_sample(step, output, x_tp1, draws.noise_posterior)
    np.testing.assert_allclose(fake, output, rtol=1e-5, atol=1e-5)


def test_one_shot_with_augmentation():
    """T = 1, and real and fake images diffused to the level that the discriminator is told."""
    one_shot = schedules.discrete_schedule("vp", 1, 0.1, 20.0)
    levels = schedules.discrete_schedule("vp", 4, 0.1, 20.0)
    plain = make(schedule=one_shot)
    objective = dataclasses.replace(plain, augmentation_schedule=levels)
    draws = objective.draw(keys(count=BATCH), SHAPE)
    augmented = seen_by_discriminator(objective, draws)
    clean = seen_by_discriminator(plain, draws)
    a = draws.augmentation
    assert not draws.t.any()
    assert set(np.asarray(a.t).tolist()) > {0}
    level = levels.transition(a.t)
    for (x, t, x_tp1), (before, _, same), noise in zip(
        augmented, clean, (a.noise_real, a.noise_fake), strict=True
    ):
        assert jnp.array_equal(x, diffusion.q_sample(level, before, noise))
        assert jnp.array_equal(t, a.t)
        assert jnp.array_equal(x_tp1, same)


def test_dropout_keys_reach_the_networks():
    """Each example has its own, in each pass another; without dropout there are none."""
    received = []

    def recording(network):
        def apply(*inputs):
            received.append(inputs[-1])
            return network(*inputs)

        return apply

    networks = {
        "generate": recording(linear_generator),
        "discriminate": recording(linear_discriminator),
    }
    for dropout in (False, True):
        objective = make(generator_dropout=dropout, discriminator_dropout=dropout, **networks)
        draws = objective.draw(keys(), SHAPE)
        objective.discriminator_loss(D, G, images(), None, draws, False)
        assert len(received) == 3
        if not dropout:
            assert received == [None] * 3
            received.clear()
    assert len({k.tobytes() for part in received for k in jax.random.key_data(part)}) == 3 * BATCH
