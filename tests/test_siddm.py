"""SIDDM's continuous schedule and loss terms against known values and their own laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import diffusion, losses, models, schedules
from ddgan_jax.config import siddm_config, tiny
from ddgan_jax.losses import Chain
from ddgan_jax.schedules import CosineSchedule

pytestmark = pytest.mark.quick

# (T, tau): signal^2 at s, signal^2 at tau, beta, c0, c1, standard deviation of the posterior.
KNOWN = {
    (4, 1.00): (0.14424968, 0.0, 1.0, 0.37980216, 0.0, 0.92506774),
    (4, 0.75): (0.49376684, 0.14424968, 0.70785871, 0.58124666, 0.31974222, 0.64710544),
    (4, 0.50): (0.84688053, 0.49376684, 0.41695809, 0.75797152, 0.23095625, 0.35512898),
    (4, 0.25): (0.99984459, 0.84688053, 0.15298784, 0.99906268, 0.00093409, 0.01246095),
    (2, 1.00): (0.49376684, 0.0, 1.0, 0.70268545, 0.0, 0.71150064),
    (2, 0.50): (0.99984459, 0.49376684, 0.50615641, 0.99977070, 0.00021573, 0.01246537),
    (1, 1.00): (0.99984459, 0.0, 1.0, 0.99992229, 0.0, 0.01246631),
    (8, 0.875): (None, None, 0.74026888, 0.29209956, 0.45309894, 0.81126039),
    (8, 0.125): (None, None, 0.04219541, 0.99640730, 0.00359187, 0.01244438),
    (16, 0.0625): (None, None, 0.01186767, 0.98714883, None, 0.01238643),
}
TAUS = np.array([1.0, 0.75, 0.5, 0.25])


def steps_in_float64(T, taus):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, CosineSchedule(T).transition(np.asarray(taus, np.float64)))


# ---- schedule


@pytest.mark.parametrize(("T", "tau"), KNOWN)
def test_known_values(T, tau):
    for step, tolerance in (
        (steps_in_float64(T, [tau]), 1e-8),
        (CosineSchedule(T).transition(np.float32([tau])), 3e-7),
    ):
        found = (
            step.signal**2,
            step.next_signal**2,
            step.step_noise**2,
            step.posterior_x_0,
            step.posterior_x_tp1,
            step.posterior_std,
        )
        for value, expected in zip(found, KNOWN[T, tau], strict=True):
            if expected is not None:
                np.testing.assert_allclose(value, [expected], atol=tolerance, rtol=0)
        np.testing.assert_allclose(step.next_time, [1000 * tau])
        np.testing.assert_allclose(step.time, [1000 * max(tau - 1 / T, 0)])


def test_composed_steps_are_the_marginal():
    """A step from s to tau behind the marginal at s is the marginal at tau."""
    for T in (1, 3, 16):
        step = steps_in_float64(T, np.linspace(1e-4, 1, 300))
        np.testing.assert_allclose(step.step_signal * step.signal, step.next_signal, atol=1e-14)
        noise = step.step_signal**2 * step.noise**2 + step.step_noise**2
        np.testing.assert_allclose(noise, step.next_noise**2, atol=1e-14)
        np.testing.assert_allclose(step.signal**2 + step.noise**2, 1, atol=1e-14)


def test_posterior_is_bayes_rule():
    """Product of the marginal at s and the step's likelihood, completed to a square."""
    step = steps_in_float64(4, np.linspace(0.01, 0.999, 100))
    precision = 1 / step.noise**2 + step.step_signal**2 / step.step_noise**2
    variance = step.posterior_std**2
    np.testing.assert_allclose(variance, 1 / precision, rtol=1e-10)
    np.testing.assert_allclose(step.posterior_x_0, variance * step.signal / step.noise**2)
    expected = variance * step.step_signal / step.step_noise**2
    np.testing.assert_allclose(step.posterior_x_tp1, expected)


def test_smallest_steps_keep_their_digits():
    """beta of the smallest tau is 4e-6; as a difference of cosines it would be off by 1.5 %."""
    taus = np.geomspace(1e-4, 1e-2, 50)
    exact = steps_in_float64(4, np.float32(taus).astype(float))
    ours = CosineSchedule(4).transition(np.float32(taus))
    np.testing.assert_allclose(ours.step_noise**2, exact.step_noise**2, rtol=2e-5)
    assert 3e-6 < exact.step_noise[0] ** 2 < 5e-6


@pytest.mark.parametrize("count", [1, 2, 4, 7, 32])
def test_sampling_ends_with_the_prediction_itself(count):
    steps = CosineSchedule(count).sampling_transitions()
    np.testing.assert_allclose(steps.next_time, 1000 * np.arange(count, 0, -1) / count, rtol=1e-6)
    assert (steps.posterior_x_0[-1], steps.posterior_x_tp1[-1], steps.posterior_std[-1]) == (
        1,
        0,
        0,
    )
    assert steps.next_signal[0] == 0  # nothing of the image is left in the first noise
    if count > 1:
        assert steps.posterior_std[0] > 0


def test_training_times():
    keys = jax.random.split(jax.random.key(0), 20_000)
    tau = np.asarray(CosineSchedule(4).draw_times(keys))
    assert 1e-4 <= tau.min() < 1e-3
    assert 0.999 < tau.max() <= 1
    # Kolmogorov's distance to the uniform distribution; 1.95 / sqrt(n) is passed once in 1000.
    distance = np.abs(np.sort(tau) - np.linspace(0, 1, len(tau))).max()
    assert distance < 1.95 / np.sqrt(len(tau))


def test_one_shot_is_a_plain_gan():
    """Its only step leads from noise without any signal to the prediction itself."""
    schedule = schedules.discrete_schedule("one_shot", 1, 0.1, 20.0)
    step = schedule.transition(np.zeros(1, np.int32))
    x_0, noise = np.full((1, 2), 3.0, np.float32), np.float32([[0.5, -2.0]])
    x_t, x_tp1 = diffusion.q_sample_pairs(step, x_0, noise, noise)
    np.testing.assert_array_equal(x_tp1, noise)
    np.testing.assert_allclose(x_t, x_0, rtol=1e-3)  # beta_0 = 1e-8
    ours = diffusion.posterior_sample(step, x_0, x_tp1, noise)
    np.testing.assert_array_equal(ours, x_0)


# ---- auxiliary forward diffusion


def generated(step, fake_x_0, x_tp1, noise):
    return diffusion.posterior_sample(step, fake_x_0, x_tp1, noise)


@pytest.mark.parametrize(
    ("tau", "mean"), [(0.05, 27.6967), (0.3, 21.7528), (0.6, 7.1494), (0.93, 1.9594)]
)
def test_mean_of_the_code_form(tau, mean):
    """Its closed form: x_0' = (3, -7), x_tau = (1.2, 0.4), T = 4, over all noises."""
    count = 200_000
    step = CosineSchedule(4).transition(np.full(count, tau, np.float32))
    fake_x_0 = np.broadcast_to(np.float32([3, -7]), (count, 2))
    x_tp1 = np.broadcast_to(np.float32([1.2, 0.4]), (count, 2))
    posterior, fresh = jax.random.normal(jax.random.key(1), (2, count, 2))
    chain = Chain(fake_x_0, x_tp1, fake_x_0, generated(step, fake_x_0, x_tp1, posterior))
    values = np.asarray(losses.afd_code(step, chain, fresh))
    assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(count) + 1e-4

    exact = steps_in_float64(4, [np.float32(tau)])
    beta, abar = exact.step_noise**2, exact.next_signal**2
    pull = np.square([[1.2, 0.4]] - np.sqrt(abar) * [[3, -7]]).mean()
    closed = (beta / (1 - abar)) ** 2 * pull + exact.step_signal**2 * exact.posterior_std**2 + beta
    np.testing.assert_allclose(closed, mean, rtol=1e-5)


def gaussian_pairs(generate, count=400_000, tau=0.5, scale=2.0):
    """(x_s', x_tau) of a generator of x_0' from x_tau, for data N(0, scale^2); and the step."""
    step = CosineSchedule(4).transition(np.full(count, tau, np.float32))
    noises = jax.random.normal(jax.random.key(2), (5, count, 1))
    x_0 = scale * noises[0]
    _, x_tau = diffusion.q_sample_pairs(step, x_0, noises[1], noises[2])
    signal, noise = step.next_signal[0], step.next_noise[0]
    variance = 1 / (1 / scale**2 + signal**2 / noise**2)
    mean = variance * signal / noise**2 * x_tau
    fake_x_0 = generate(mean, np.sqrt(variance), noises[3])
    return step, Chain(x_0, x_tau, fake_x_0, generated(step, fake_x_0, x_tau, noises[4]))


def afd_with_best_head(step, chain, form=losses.afd_kl):
    """A of a form with C(x) = a x, whose a minimises C's own half; and a."""
    x, target = chain.fake_x_t, chain.x_tp1 / step.step_signal[0]
    a = float((x * target).mean() / (x * x).mean())
    first_half = form(step, chain, None).mean()
    return float(first_half - losses.afd_regression(step, chain.x_tp1, a * x).mean()), a


def test_afd_vanishes_for_the_true_model():
    """x_0' drawn from the true p(x_0 | x_tau) makes (x_s', x_tau) a real pair: A = 0, C = x."""
    value, a = afd_with_best_head(*gaussian_pairs(lambda mean, std, noise: mean + std * noise))
    assert abs(a - 1) < 0.01
    assert abs(value) < 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda mean, std, noise: mean,  # regression to the mean
        lambda mean, std, noise: -2 * noise,  # the right marginal, but blind to x_tau
        lambda mean, std, noise: 3 * (mean + std * noise),
    ],
)
def test_afd_is_positive_for_wrong_models(wrong):
    value, a = afd_with_best_head(*gaussian_pairs(wrong))
    assert value > 0.005
    assert abs(a - 1) > 0.05


def test_beside_recon_the_head_rewards_a_generator_that_hides_x_tau():
    """The true model has A = (1 - beta) c0^2 2 var(x_0 | x_tau) - beta > 0.

    A generator whose x_s' is noise alone has a large reconstruction, but leaves C the whole
    variance of x_tau. The form kl, where C belongs, is fair.
    """

    def hidden(step, chain):
        c0, c1 = step.posterior_x_0[0], step.posterior_x_tp1[0]
        noise = chain.fake_x_t - c0 * chain.fake_x_0 - c1 * chain.x_tp1
        return step, chain._replace(fake_x_0=-c1 / c0 * chain.x_tp1, fake_x_t=noise)

    true = gaussian_pairs(lambda mean, std, noise: mean + std * noise)
    kl, recon = (
        [afd_with_best_head(*pairs, form)[0] for pairs in (true, hidden(*true))]
        for form in (losses.afd_kl, losses.afd_recon)
    )
    assert kl[0] < kl[1]
    beta = true[0].step_noise[0] ** 2
    variance = 1 / (1 / 4 + 0.49376684 / (1 - 0.49376684))
    assert abs(recon[0] - (0.3350 * 2 * variance - beta)) < 0.01
    assert recon[1] < 0 < recon[0]


def test_without_the_head_afd_does_not_denoise():
    """The least x_0' of the kl form alone is x_tau / sqrt(abar_tau)."""
    with jax.enable_x64(True):
        step = CosineSchedule(4).transition(np.array([0.6]))
        x_tau = np.array([[1.2, -0.4]])

        def loss(x_0):
            # The expectation over the noise adds a constant.
            x_s = diffusion.posterior_mean(step, x_0, x_tau)
            return losses.afd_kl(step, Chain(x_0, x_tau, x_0, x_s), None).sum()

        least = x_tau / np.asarray(step.next_signal)[:, None]
        np.testing.assert_allclose(jax.grad(loss)(least), 0, atol=1e-15)
        assert loss(least + 0.1) > loss(least)


def test_recon_is_the_expected_reconstruction_of_x_t():
    """Its gradient in x_0' is that of E (1 - beta) |x_s' - x_s|^2; known weights at T = 4."""
    with jax.enable_x64(True):
        step = CosineSchedule(4).transition(TAUS)
        rng = np.random.default_rng(0)
        x_0, fake = rng.standard_normal((2, 4, 3))
        chain = Chain(x_0, None, fake, None)

        def recon(fake):
            return losses.afd_recon(step, chain._replace(fake_x_0=fake), None).sum()

        def reconstruction(fake):
            # E of x_s' - x_s given both x_0: the noises of the two are independent.
            difference = step.posterior_x_0[:, None] * (fake - x_0)
            return ((step.step_signal**2) * losses.mean_square(difference)).sum()

        np.testing.assert_allclose(jax.grad(recon)(fake), jax.grad(reconstruction)(fake))
        weights = (step.step_signal * step.posterior_x_0) ** 2
        np.testing.assert_allclose(weights, [0, 0.0987, 0.3350, 0.8454], atol=5e-5)
        likelihood = weights * losses.afd_weights("likelihood", step)
        np.testing.assert_allclose(likelihood, [0, 0.0697, 0.4017, 2.763], atol=5e-4)
        pull = (step.step_noise**2 / step.next_noise**2) ** 2
        np.testing.assert_allclose(pull, [1, 0.684225, 0.678397, 0.998281], atol=1e-6)


def test_likelihood_weight_has_a_ceiling():
    step = CosineSchedule(4).transition(np.float32([1e-4, 0.5]))
    weights = losses.afd_weights("likelihood", step)
    np.testing.assert_allclose(weights, [500, 0.5 / 0.41695809], rtol=1e-5)
    assert losses.afd_weights("none", step) == 1


# ---- heads


def test_fresh_networks_start_at_nothing():
    """Logits and R are 0, C is the identity, so that the first AFD of kl form is exactly 0."""
    config = siddm_config()
    config.objective.afd_regression = True
    tiny(config)
    generator, discriminator = models.init_params(config, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    t = jnp.array([100.0, 900.0])
    judgement = jax.jit(models.discriminator(config))(discriminator, x, t)
    assert judgement.logits.shape == (2, 32, 32, 1)
    assert not judgement.logits.any()
    assert not judgement.denoised.any()
    np.testing.assert_array_equal(judgement.regression, x)
    z = jax.random.normal(jax.random.key(2), (2, *models.latent_shape(config)))
    assert not jax.jit(models.generator(config))(generator, x, t, z).any()


HEAD_C = {"objective.afd_regression": True}


@pytest.mark.parametrize(
    ("changes", "heads"),
    [
        ({}, ("logits", "denoised")),
        ({"objective.denoising_weight": 0.0}, ("logits",)),
        (HEAD_C, ("logits", "regression", "denoised")),
        (HEAD_C | {"objective.afd_weight": 0.0}, ("logits", "denoised")),
        (HEAD_C | {"objective.denoising_weight": 0.0}, ("logits", "regression")),
    ],
)
def test_heads_are_those_that_the_objective_reads(changes, heads):
    config = siddm_config()
    tiny(config)
    config.update_from_flattened_dict(changes)
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    t = jax.ShapeDtypeStruct((2,), jnp.float32)
    _, params = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))
    judgement = jax.eval_shape(models.discriminator(config), params, x, t)
    assert tuple(k for k, v in judgement._asdict().items() if v is not None) == heads
    channels = params["output_conv"]["bias"].shape[0]
    assert channels == 1 + 3 * (len(heads) - 1)
