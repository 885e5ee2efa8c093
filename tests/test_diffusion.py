"""Laws of the forward process and its posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import diffusion, schedules
from ddgan_jax.errors import UserError

pytestmark = pytest.mark.quick

BETAS = {"vp": (0.1, 20.0), "geometric": (1e-4, 0.999)}
# Tables are float32: abar is exact to about 1e-7, and so is 1 - abar, however small it is.
ROUNDING = 4e-7

every_schedule = pytest.mark.parametrize(
    ("kind", "num_timesteps"), [(kind, T) for kind in BETAS for T in (1, 2, 4, 8)]
)


def make(kind, num_timesteps):
    return schedules.discrete_schedule(kind, num_timesteps, *BETAS[kind])


def all_steps(schedule):
    """The coefficients of every t at once, float64 numpy."""
    step = schedule.transition(np.arange(schedule.num_timesteps, dtype=np.int32))
    return schedules.Transition(*(np.asarray(c, np.float64) for c in step))


def quotient_rounding(abar):
    """Relative error of the posterior's coefficients, which divide by 1 - abar."""
    return ROUNDING / (1 - abar)


@every_schedule
def test_composed_steps_are_the_marginal(kind, num_timesteps):
    """Equation 1 applied t times, from x_0 and no noise, is equation 5, for every t."""
    steps = all_steps(make(kind, num_timesteps))
    signal, variance = 1.0, 0.0
    for t in range(num_timesteps):
        np.testing.assert_allclose(signal, steps.signal[t], atol=ROUNDING)
        np.testing.assert_allclose(variance, steps.noise[t] ** 2, atol=ROUNDING)
        signal *= steps.step_signal[t]
        variance = steps.step_signal[t] ** 2 * variance + steps.step_noise[t] ** 2
        np.testing.assert_allclose(signal, steps.next_signal[t], atol=ROUNDING)
        np.testing.assert_allclose(variance, steps.next_noise[t] ** 2, atol=ROUNDING)


@every_schedule
def test_pairs_are_one_chain(kind, num_timesteps):
    """x_t has the marginal's coefficients, x_{t+1} those of t + 1: read off by unit inputs."""
    step = make(kind, num_timesteps).transition(np.arange(num_timesteps, dtype=np.int32))
    one, zero = np.ones(num_timesteps, np.float32), np.zeros(num_timesteps, np.float32)
    x_t, x_tp1 = diffusion.q_sample_pairs(step, one, zero, zero)
    np.testing.assert_array_equal(x_t, step.signal)
    np.testing.assert_allclose(x_tp1, step.next_signal, atol=ROUNDING)
    from_noise_t = diffusion.q_sample_pairs(step, zero, one, zero)
    np.testing.assert_array_equal(from_noise_t[0], step.noise)
    from_noise_tp1 = diffusion.q_sample_pairs(step, zero, zero, one)
    assert not np.any(from_noise_tp1[0])  # the step's own noise enters x_{t+1} alone
    variance = from_noise_t[1] ** 2 + from_noise_tp1[1] ** 2
    np.testing.assert_allclose(variance, step.next_noise**2, atol=ROUNDING)


@every_schedule
def test_variance_is_preserved(kind, num_timesteps):
    steps = all_steps(make(kind, num_timesteps))
    for signal, noise in (
        (steps.signal, steps.noise),
        (steps.step_signal, steps.step_noise),
        (steps.next_signal, steps.next_noise),
    ):
        np.testing.assert_allclose(signal**2 + noise**2, 1.0, atol=ROUNDING)


@every_schedule
def test_marginal_follows_the_continuous_variance(kind, num_timesteps):
    """abar_t = (1 - sigma^2(s_t)) / (1 - sigma^2(s_0)): the betas telescope."""
    low, high = BETAS[kind]
    s = 1e-3 + (1 - 1e-3) * np.arange(num_timesteps + 1) / num_timesteps
    if kind == "vp":
        survival = np.exp(-(high - low) * s**2 / 2 - low * s)
    else:
        survival = 1 - low * (high / low) ** s
    abar = make(kind, num_timesteps).alphas_cumprod
    np.testing.assert_allclose(abar, survival[1:] / survival[0], rtol=1e-4, atol=ROUNDING)


@every_schedule
def test_posterior_is_bayes_rule(kind, num_timesteps):
    """q(x_t | x_{t+1}, x_0) is the product of two Gaussians in x_t, normalised.

    Computed in float64: precisions add, and so do precision-weighted means.
    """
    schedule = make(kind, num_timesteps)
    steps = all_steps(schedule)
    beta = schedule.betas[1:].astype(np.float64)
    abar = np.append(1.0, np.cumprod(1 - beta))
    for t in range(1, num_timesteps):
        prior_precision = 1 / (1 - abar[t])
        likelihood_precision = (1 - beta[t]) / beta[t]
        variance = 1 / (prior_precision + likelihood_precision)
        from_x_0 = variance * prior_precision * np.sqrt(abar[t])
        from_x_tp1 = variance * likelihood_precision / np.sqrt(1 - beta[t])
        rtol = quotient_rounding(abar[t])
        np.testing.assert_allclose(steps.posterior_x_0[t], from_x_0, rtol=rtol)
        np.testing.assert_allclose(steps.posterior_x_tp1[t], from_x_tp1, rtol=rtol)
        np.testing.assert_allclose(steps.posterior_std[t], np.sqrt(variance), rtol=rtol)


@every_schedule
def test_last_step_returns_the_prediction(kind, num_timesteps):
    schedule = make(kind, num_timesteps)
    step = schedule.transition(np.zeros(5, np.int32))
    rng = np.random.default_rng(0)
    x_0, x_tp1, noise = rng.standard_normal((3, 5, 4)).astype(np.float32)
    x = diffusion.posterior_sample(step, x_0, x_tp1, noise)
    np.testing.assert_allclose(x, x_0, rtol=quotient_rounding(schedule.alphas_cumprod[0]))
    other = diffusion.posterior_sample(step, x_0, -3 * x_tp1, 1e3 * noise)
    np.testing.assert_array_equal(x, other)


@every_schedule
def test_first_image_is_clean(kind, num_timesteps):
    step = make(kind, num_timesteps).transition(np.zeros(5, np.int32))
    x_0 = np.linspace(-1, 1, 5, dtype=np.float32)
    np.testing.assert_array_equal(diffusion.q_sample(step, x_0, 1e6 * np.ones_like(x_0)), x_0)


@every_schedule
def test_true_noise_as_prediction_is_true_image(kind, num_timesteps):
    """predicted_x_0 inverts the marginal at t + 1, and denoise("noise") is denoise("x_0")."""
    with jax.enable_x64(True):
        step = make(kind, num_timesteps).transition(np.arange(num_timesteps, dtype=np.int32))
        rng = np.random.default_rng(0)
        x_0, noise, posterior_noise = rng.standard_normal((3, num_timesteps, 2, 3, 1))
        signal, scale = (c[:, None, None, None] for c in (step.next_signal, step.next_noise))
        x_tp1 = signal * x_0 + scale * noise
        np.testing.assert_allclose(diffusion.predicted_x_0(step, noise, x_tp1), x_0, atol=1e-12)
        for ours, expected in zip(
            diffusion.denoise("noise", step, noise, x_tp1, posterior_noise),
            diffusion.denoise("x_0", step, x_0, x_tp1, posterior_noise),
            strict=True,
        ):
            np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_direct_denoising_is_the_output_itself():
    step = make("vp", 4).transition(np.array([0, 3], np.int32))
    rng = np.random.default_rng(0)
    output, x_tp1, noise = rng.standard_normal((3, 2, 5)).astype(np.float32)
    x_0, x_t = diffusion.denoise("x_t", step, output, x_tp1, noise)
    assert x_0 is None
    np.testing.assert_array_equal(x_t, output)


@pytest.mark.parametrize(("kind", "num_timesteps"), [("vp", 4), ("vp", 8), ("geometric", 4)])
def test_sampling_with_the_true_image_gives_the_forward_marginals(kind, num_timesteps):
    """The reverse chain with x_0 known has the forward chain's moments at every t.

    200,000 chains of one pixel; a sample mean errs by std / sqrt(N), a sample variance by
    var sqrt(2 / N), and 5 standard errors are allowed.
    """
    schedule, count, x_0 = make(kind, num_timesteps), 200_000, 0.8
    rng = np.random.default_rng(0)
    steps = all_steps(schedule)
    image = np.full(count, x_0, np.float32)
    x = steps.next_signal[-1] * image + steps.next_noise[-1] * rng.standard_normal(count)
    for now in zip(*schedule.sampling_transitions(), strict=True):
        step = schedules.Transition(*(np.full(count, c) for c in now))
        t = int(step.time[0])
        later, noise = np.asarray(x, np.float32), rng.standard_normal(count).astype(np.float32)
        x = np.asarray(diffusion.denoise("x_0", step, image, later, noise)[1], np.float64)
        std = steps.noise[t]
        rounding = quotient_rounding(schedule.alphas_cumprod[t])
        assert abs(x.mean() - steps.signal[t] * x_0) <= 5 * std / np.sqrt(count) + rounding
        assert abs(x.var() - std**2) <= 5 * std**2 * np.sqrt(2 / count) + ROUNDING
        # Neighbours are correlated as in the forward chain: cov(x_t, x_{t+1}) = a_{t+1} var(x_t).
        covariance = np.cov(x, later)[0, 1]
        error = std * steps.next_noise[t] * np.sqrt(2 / count)
        assert abs(covariance - steps.step_signal[t] * std**2) <= 5 * error + ROUNDING


@pytest.mark.parametrize(
    ("kind", "beta_min", "beta_max"),
    [
        ("geometric", 0.1, 20.0),
        ("geometric", 1e-4, 1.0),
        ("geometric", 0.5, 0.1),
        ("vp", 0.0, 0.0),
        ("vp", 20.0, -50.0),
    ],
)
def test_impossible_betas_are_refused(kind, beta_min, beta_max):
    with pytest.raises(UserError, match=f"beta_min={beta_min} and beta_max={beta_max}"):
        schedules.discrete_schedule(kind, 4, beta_min, beta_max)


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (4, 3, 2), (2, 2, 2, 2)])
def test_any_rank(shape):
    """Every function treats an example of any shape as so many numbers with one coefficient."""
    batch = 4
    step = make("vp", 4).transition(np.arange(batch, dtype=np.int32))
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((4, batch, *shape)).astype(np.float32)
    flat = arrays.reshape(4, batch, -1)

    def everything(x, y, u, v):
        x_t, x_tp1 = diffusion.q_sample_pairs(step, x, u, v)
        return jnp.stack(
            [
                x_t,
                x_tp1,
                diffusion.posterior_sample(step, x, y, u),
                diffusion.predicted_x_0(step, u, y),
            ]
        )

    numbers = [everything(*column) for column in np.moveaxis(flat, 2, 0)]
    expected = np.stack(numbers, axis=-1).reshape(4, batch, *shape)
    np.testing.assert_allclose(everything(*arrays), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_timesteps", [1, 2, 8])
def test_times(num_timesteps):
    """Training times are uniform over 0 .. T - 1; sampling visits each once, from noise on."""
    schedule, count = make("vp", num_timesteps), 8_000
    t = np.asarray(schedule.draw_times(jax.random.split(jax.random.key(0), count)))
    counts = np.bincount(t, minlength=num_timesteps)
    p = 1 / num_timesteps
    assert len(counts) == num_timesteps
    assert np.all(np.abs(counts - count * p) <= 5 * np.sqrt(count * p * (1 - p)))
    steps = schedule.sampling_transitions()
    np.testing.assert_array_equal(steps.time, np.arange(num_timesteps)[::-1])
    np.testing.assert_array_equal(steps.next_time, steps.time)  # what DDGAN tells its networks
