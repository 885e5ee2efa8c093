"""The objective's equations and variants, on networks of one line each."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import diffusion, losses, models, train_step
from ddgan_jax.config import base_config, siddm_config
from ddgan_jax.models.discriminators import minibatch_stddev
from ddgan_jax.objective import Objective, make_objective
from ddgan_jax.types import Judgement

pytestmark = pytest.mark.quick

SHAPE = (2, 2, 1)
BATCH = 8


def linear_generator(params, x, t, z, labels=None, keys=None):
    """g x + h t + z_0."""
    return params["g"] * x + params["h"] * _column(t) + _column(z[:, 0])


def linear_discriminator(params, x_t, t, x_tp1, labels=None, keys=None):
    """Sum over pixels of a x_t + b x_{t+1}, plus c t."""
    return Judgement(
        (params["a"] * x_t + params["b"] * x_tp1).sum((1, 2, 3)) + params["c"] * t
    )


def _column(v):
    return v[:, None, None, None]


G = {"g": 0.7, "h": 0.1}
D = {"a": 0.3, "b": -0.2, "c": 0.05}


def make(**fields):
    """DDGAN on the linear networks, T = 4; of the base config what is its objective."""
    defaults = base_config().objective.to_dict() | {
        "generate": linear_generator,
        "discriminate": linear_discriminator,
        "schedule": diffusion.discrete_schedule("vp", 4, 0.1, 20.0),
        "r1_gamma": 0.5,
        "latent": "normal",
        "latent_shape": (3,),
        "generator_dropout": False,
        "discriminator_dropout": False,
        "augmentation_schedule": None,
    }
    fields = defaults | fields
    return Objective(**{name: fields[name] for name in Objective._fields})


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


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_losses_of_huge_logits(size):
    """softplus is linear on one side and 0 on the other; nothing overflows, gradients neither."""
    logits = jnp.array([size, 0.0])
    for loss, sign in (
        (losses.discriminator_real_loss, -1),
        (losses.discriminator_fake_loss, 1),
        (losses.generator_adversarial_loss, -1),
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
    schedule = diffusion.discrete_schedule("vp", num_timesteps, 0.1, 20.0)
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

    objective = objective._replace(discriminate=discriminate)
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
    one_shot = diffusion.discrete_schedule("vp", 1, 0.1, 20.0)
    levels = diffusion.discrete_schedule("vp", 4, 0.1, 20.0)
    plain = make(schedule=one_shot)
    objective = plain._replace(augmentation_schedule=levels)
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


VARIANTS = {
    "one step": {"diffusion.num_timesteps": 1},
    "two steps": {"diffusion.num_timesteps": 2},
    "eight steps": {"diffusion.num_timesteps": 8},
    "no latent": {"generator.latent": "none"},
    "direct denoising": {"objective.prediction": "x_t", "generator.output_tanh": False},
    "noise generation": {"objective.prediction": "noise", "generator.output_tanh": False},
    "one-shot GAN": {"diffusion.schedule": "one_shot", "diffusion.num_timesteps": 1},
    "augmentation": {"diffusion.num_timesteps": 1, "objective.augmentation_timesteps": 4},
    "geometric": {
        "diffusion.schedule": "geometric",
        "diffusion.beta_min": 1e-4,
        "diffusion.beta_max": 0.999,
    },
    "dropout": {"generator.dropout": 0.1},
    "no R1": {"objective.r1_gamma": 0.0},
}


def one_step(config, monkeypatch, generator, discriminator, params):
    """(state before, state after, metrics) of the first train step, with stand-ins for networks."""
    monkeypatch.setattr(models, "build_generator", lambda config: generator)
    monkeypatch.setattr(models, "build_discriminator", lambda config: discriminator)
    monkeypatch.setattr(models, "init_params", lambda config, key: params)
    step = jax.vmap(
        train_step.make_train_step(config, r1=train_step.has_r1(config, 0)),
        in_axes=(None, 0, None),
        out_axes=None,
        axis_name=train_step.AXIS,
    )
    batch = {
        "image": np.arange(BATCH * 4, dtype=np.uint8).reshape(1, BATCH, 2, 2, 1),
        "label": np.arange(BATCH, dtype=np.int32).reshape(1, BATCH),
        "index": np.arange(BATCH).reshape(1, BATCH),
    }
    before = train_step.init_state(config, jax.random.key(0))
    after, metrics = jax.jit(step)(before, batch, jax.random.key(0))
    assert after.step == 1
    assert all(np.isfinite(value) for value in metrics.values())
    return before, after, metrics


def check_first_updates(config, before, after, without_gradient=""):
    """Adam's first step is as long as the learning rate, wherever there is a gradient."""
    for name in ("generator", "discriminator"):
        old, new = (getattr(state, name).params for state in (before, after))
        for weight in old:
            rate = config.optimizer[f"{name}_learning_rate"] * (weight not in without_gradient)
            moved = np.abs(new[weight] - old[weight])
            np.testing.assert_allclose(moved, np.full_like(moved, rate), rtol=1e-2, err_msg=weight)


@pytest.mark.parametrize("name", VARIANTS)
def test_config_chooses_the_variant(name, monkeypatch):
    """Every field of DDGAN's ablation table reaches the objective, and one step of it trains.

    The networks are the linear ones, in place of those that the config would build.
    """
    config = base_config()
    config.data.image_size, config.data.channels, config.train.batch_size = 2, 1, BATCH
    config.update_from_flattened_dict(VARIANTS[name])

    objective = make_objective(config)
    np.testing.assert_array_equal(objective.schedule.betas, diffusion.make_schedule(config).betas)
    assert objective.schedule.num_timesteps == config.diffusion.num_timesteps
    assert objective.prediction == config.objective.prediction
    assert objective.latent == config.generator.latent
    assert objective.latent_shape == (config.generator.latent_dim,)
    assert objective.generator_dropout == (config.generator.dropout > 0)
    assert objective.r1_gamma == config.objective.r1_gamma
    augmentation = objective.augmentation_schedule
    levels = augmentation.num_timesteps if augmentation else 0
    assert levels == config.objective.augmentation_timesteps

    generator = SimpleNamespace(
        apply=lambda variables, *inputs, dropout_keys: linear_generator(
            variables["params"], *inputs
        )
    )
    discriminator = SimpleNamespace(
        apply=lambda variables, *inputs: linear_discriminator(variables["params"], *inputs).logits
    )
    params = jax.tree.map(jnp.float32, (G, D))
    before, after, metrics = one_step(config, monkeypatch, generator, discriminator, params)
    assert ("r1" in metrics) == (name != "no R1")
    always_0 = config.diffusion.num_timesteps == 1  # the time; that of augmentation is not
    check_first_updates(
        config, before, after, without_gradient="h" * always_0 + "c" * (always_0 and not levels)
    )


PAIRS = {"objective.joint": True, "objective.afd_weight": 0.0}
SIDDM_VARIANTS = {
    "SIDDM": {},
    "without AFD": {"objective.afd_weight": 0.0},
    "AFD alone": {"objective.adversarial_weight": 0.0},
    "without regulariser": {"objective.denoising_weight": 0.0},
    "without head C": {"objective.afd_regression": False},
    "kl": {"objective.afd_form": "kl"},
    "code": {"objective.afd_form": "code"},
    "likelihood": {"objective.afd_scaling": "likelihood"},
    "time of x_t": {"objective.discriminator_time": "t"},
    "two logits": {"discriminator.num_logits": 2},
    "no latent": {"generator.latent": "none"},
    "DDGAN, U-Net": PAIRS | {"objective.denoising_weight": 0.0},
    "DDGAN, U-Net, regulariser": PAIRS,
    "x_0 judged": {
        "objective.judged": "x_0",
        "objective.afd_regression": False,
        "objective.denoising_weight": 0.0,
    },
}


@pytest.mark.parametrize("name", SIDDM_VARIANTS)
def test_config_chooses_the_variant_of_siddm(name, monkeypatch):
    """Every row of SIDDM's ablations: the outputs it needs, the terms it adds, one step of it.

    The stand-in for a U-Net is one matrix on each pixel.
    """
    config = siddm_config()
    config.data.image_size, config.data.channels, config.train.batch_size = 2, 1, BATCH
    config.update_from_flattened_dict({"objective.afd_weight": 0.7} | SIDDM_VARIANTS[name])
    config.objective.denoising_weight *= 0.3
    o = config.objective
    has_c, has_r = o.afd_weight > 0 and o.afd_regression, o.denoising_weight > 0

    def pointwise(variables, x, t, labels, dropout_keys):
        assert labels is None  # there are no classes
        return x @ variables["params"]["w"] + variables["params"]["c"] * _column(t) / 1000

    widths = {
        "generator": (1 + (config.generator.latent != "none"), 1),
        "discriminator": (1 + o.joint, config.discriminator.num_logits + has_c + has_r),
    }
    rng = np.random.default_rng(0)
    params = tuple(
        {"w": rng.uniform(0.2, 1, shape), "c": rng.uniform(0.2, 1, shape[1])}
        for shape in widths.values()
    )
    params = jax.tree.map(jnp.float32, params)
    network = SimpleNamespace(apply=pointwise)
    before, after, metrics = one_step(config, monkeypatch, network, network, params)

    expected = {"d_loss_real", "d_loss_fake", "d_logit_real", "d_logit_fake", "g_loss"}
    expected |= {"d_regression"} if has_c else set()
    expected |= {"d_denoising"} if has_r else set()
    expected |= {"g_afd"} if o.afd_weight else set()
    assert metrics.keys() == expected
    check_first_updates(config, before, after)

    objective = make_objective(config)
    draws = objective.draw(keys(), SHAPE)
    assert (draws.noise_afd is not None) == (o.afd_form == "code")
    loss, terms = objective.discriminator_loss(*params[::-1], images(), None, draws, False)
    total = terms["d_loss_real"] + terms["d_loss_fake"]
    total += o.afd_weight * terms.get("d_regression", 0)
    total += o.denoising_weight * terms.get("d_denoising", 0)
    np.testing.assert_allclose(loss, total, rtol=1e-6)
    loss, terms = objective.generator_loss(*params, images(), None, draws)
    total = o.adversarial_weight * terms["g_loss"] + o.afd_weight * terms.get("g_afd", 0)
    np.testing.assert_allclose(loss, total, rtol=1e-6)
