"""Derive noise schedules: the coefficients of a forward diffusion in a few large steps.

Discrete times (DDGAN, Xiao et al. 2022). The forward process turns an image x_0 into noise x_T by

    q(x_{t+1} | x_t) = N(sqrt(1 - beta_{t+1}) x_t, beta_{t+1} I)                              (1)

Its betas come from a continuous variance sigma^2(s) at s_k = eps + (1 - eps) k / T, k = 0 .. T,
with eps = 1e-3 and

    VP         sigma^2(s) = 1 - exp(-(beta_max - beta_min) s^2 / 2 - beta_min s)               (2)
    geometric  sigma^2(s) = beta_min (beta_max / beta_min)^s                                   (3)
    beta_k = 1 - (1 - sigma^2(s_k)) / (1 - sigma^2(s_{k-1})),   k = 1 .. T                      (4)

which divides out the variance that is already there at s_0. A beta_0 = 1e-8 is put in front, so
that "x_t at t = 0" exists; in float32 it is x_0 without any noise. With alpha = 1 - beta and
abar_t = prod_{k <= t} alpha_k the marginal is

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                                         (5)

Bayes' rule on (1) and (5), over the T betas without beta_0, gives the posterior that turns a
prediction of x_0 into the next sample:

    q(x_t | x_{t+1}, x_0) = N(c0_t x_0 + c1_t x_{t+1}, v_t I)                                  (6)
    c0_t = beta_{t+1} sqrt(abar_t) / (1 - abar_{t+1})                                          (7)
    c1_t = sqrt(alpha_{t+1}) (1 - abar_t) / (1 - abar_{t+1})                                   (8)
    v_t  = beta_{t+1} (1 - abar_t) / (1 - abar_{t+1})                                          (9)

At t = 0: c1 = v = 0, so the last sampling step returns the prediction itself, without noise.

The betas are float64 rounded once to float32; what follows from them is float32 in the order of
operations of the published code, since its networks were trained with exactly those numbers.
Everything happens in numpy, once; inside a compiled step the tables are constants.

Continuous times (SIDDM, Xu et al. 2023). With the angle a(u) = (u + 0.008) / 1.008 pi / 2,

    q(x_u | x_0) = N(cos a(u) x_0, sin^2 a(u) I),   u in [0, 1]                                (10)

and a step of training goes from s = max(tau - 1/T, 0) to tau ~ U(0, 1), so that tau takes the
place of t + 1 above and s that of t. Ratios of (10) and the addition theorem
cos^2 a - cos^2 b = sin(b + a) sin(b - a) turn equations 1 and 7 to 9, with a = a(s), b = a(tau),
into

    sqrt(1 - beta) = cos b / cos a,   beta = sin(b + a) sin(b - a) / cos^2 a                   (11)
    c0 = cos a beta / sin^2 b,   c1 = cos b sin^2 a / (cos a sin^2 b),                         (12)
    v = beta sin^2 a / sin^2 b                                                                 (13)

without a difference of nearly equal numbers, however small the step. sin a(0) = 0.0125 is the
noise that is left in the cleanest images that training sees; sampling visits tau = 1, 1 - 1/n, ..,
1/n for any n and returns the last prediction of x_0 itself.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ddgan_jax.errors import UserError
from ddgan_jax.state import AnyArray as Array
from ddgan_jax.state import Keys

# This is eps of equation 4, and s_0.
FIRST_TIME = 1e-3
# This is beta_0, in front of the betas of equation 4.
FIRST_BETA = 1e-8
# The least variance, which keeps the logarithm of v_0 = 0 finite.
MINIMUM_VARIANCE = 1e-20
COSINE_OFFSET = 0.008
SMALLEST_TAU = 1e-4
# The networks are told a continuous time in [0, 1] in this unit.
NETWORK_TIME_UNIT = 1000
_ANGLE_SLOPE = math.pi / 2 / (1 + COSINE_OFFSET)


class Transition(NamedTuple):
    """The coefficients of one step x_t -> x_{t+1} for each example, float32, each of shape (B,).

    Every schedule, discrete or continuous, reduces to these numbers, and `diffusion` knows nothing
    else of it. The networks are told one of the two times.
    """

    time: Array  # of x_t. int: t; or float: 1000 s
    # Of x_{t+1}. int: t as well, as in DDGAN's networks; or float: 1000 tau.
    next_time: Array

    signal: Array  # sqrt(abar_t), equation 5
    noise: Array  # sqrt(1 - abar_t)
    step_signal: Array  # sqrt(1 - beta_{t+1}), equation 1
    step_noise: Array  # sqrt(beta_{t+1})
    next_signal: Array  # sqrt(abar_{t+1})
    next_noise: Array  # sqrt(1 - abar_{t+1})
    posterior_x_0: Array  # c0, equation 7
    posterior_x_tp1: Array  # c1, equation 8
    posterior_std: Array  # sqrt(v), equation 9; exactly 0 at t = 0


class DiscreteSchedule(NamedTuple):
    """Tables over the integer times of DDGAN; numpy float32.

    Arrays of length T + 1 are indexed by the time of the image (0: clean, T: noise), those of
    length T by t, the time that a denoising step arrives at.
    """

    betas: np.ndarray  # (T + 1,)
    sigmas: np.ndarray  # (T + 1,) sqrt(beta)
    sqrt_alphas: np.ndarray  # (T + 1,)
    sqrt_alphas_cumprod: np.ndarray  # (T + 1,)
    sigmas_cumprod: np.ndarray  # (T + 1,) sqrt(1 - abar)
    alphas_cumprod: np.ndarray  # (T,) abar_{t+1} over the betas without beta_0
    alphas_cumprod_prev: np.ndarray  # (T,) abar_t, likewise
    posterior_mean_coef1: np.ndarray  # (T,) c0
    posterior_mean_coef2: np.ndarray  # (T,) c1
    posterior_variance: np.ndarray  # (T,) v
    posterior_log_variance: np.ndarray  # (T,) log(max(v, 1e-20))

    @property
    def num_timesteps(self) -> int:
        """Return T."""
        return len(self.betas) - 1

    def draw_times(self, keys: Keys) -> Int[jax.Array, " b"]:
        """Draw times for training, int32, uniform over 0 .. T - 1."""
        return jax.vmap(lambda key: jax.random.randint(key, (), 0, self.num_timesteps))(keys)

    def sampling_transitions(self) -> Transition:
        """Return the T steps of sampling from noise to image, t = T - 1, .., 0; arrays (T,)."""
        return self.transition(jnp.arange(self.num_timesteps - 1, -1, -1, dtype=jnp.int32))

    def transition(self, t: Array) -> Transition:
        """Return the coefficients of the steps between t and t + 1. t: int (B,), 0 .. T - 1."""
        t = jnp.asarray(t)
        # exp of half the rounded logarithm, not the square root: the published rounding.
        std = np.exp(0.5 * self.posterior_log_variance.astype(np.float64)).astype(np.float32)
        # The variance in the logarithm is at least MINIMUM_VARIANCE, but the last step adds no
        # noise.
        std[0] = 0.0
        # DDGAN's networks are told the time that the step arrives at, whichever image they see.
        t_of_both = np.arange(self.num_timesteps, dtype=np.int32)
        tables: dict[str, np.ndarray] = dict(
            time=t_of_both,
            next_time=t_of_both,
            signal=self.sqrt_alphas_cumprod[:-1],
            noise=self.sigmas_cumprod[:-1],
            step_signal=self.sqrt_alphas[1:],
            step_noise=self.sigmas[1:],
            next_signal=self.sqrt_alphas_cumprod[1:],
            next_noise=self.sigmas_cumprod[1:],
            posterior_x_0=self.posterior_mean_coef1,
            posterior_x_tp1=self.posterior_mean_coef2,
            posterior_std=std,
        )
        return Transition(**{name: jnp.asarray(table)[t] for name, table in tables.items()})


def vp_variance(s: np.ndarray, beta_min: float, beta_max: float) -> np.ndarray:
    """Return the variance-preserving sigma^2(s), equation 2. s: float64 in [0, 1]."""
    return 1.0 - np.exp(-0.5 * s**2 * (beta_max - beta_min) - s * beta_min)


def geometric_variance(s: np.ndarray, beta_min: float, beta_max: float) -> np.ndarray:
    """Return the geometric sigma^2(s), equation 3. s: float64 in [0, 1]."""
    return beta_min * (beta_max / beta_min) ** s


def one_shot_variance(s: np.ndarray, beta_min: float, beta_max: float) -> np.ndarray:
    """Return 0 at s_0 and 1 after it.

    With T = 1 this is one step from pure noise to the image, a plain GAN.
    """
    del beta_min, beta_max
    return (s > FIRST_TIME).astype(np.float64)


_VARIANCES = {
    "vp": vp_variance,
    "geometric": geometric_variance,
    "one_shot": one_shot_variance,
}


def discrete_schedule(
    name: str, num_timesteps: int, beta_min: float, beta_max: float
) -> DiscreteSchedule:
    """Return the tables of a schedule by its name for T = num_timesteps >= 1, equations 2 to 9.

    Raises UserError if the betas leave (0, 1), as those of the geometric schedule do unless
    0 < beta_min < beta_max < 1.
    """
    s = np.arange(num_timesteps + 1, dtype=np.float64) / num_timesteps
    variance = _VARIANCES[name](s * (1.0 - FIRST_TIME) + FIRST_TIME, beta_min, beta_max)
    betas = 1.0 - (1.0 - variance[1:]) / (1.0 - variance[:-1])
    # No noise schedule but that of pure noise reaches 1, where nothing of the image is left.
    if not np.all((betas > 0) & (betas < 1)) and name != "one_shot":
        raise UserError(
            f"diffusion: beta_min={beta_min} and beta_max={beta_max} are not a valid {name} "
            "schedule (its betas must lie between 0 and 1)"
        )
    betas = np.append(FIRST_BETA, betas).astype(np.float32)
    sqrt_alphas = np.sqrt(1 - betas)
    # A product of roots and not the root of a product, which rounds otherwise.
    sqrt_alphas_cumprod = np.cumprod(sqrt_alphas)

    beta = betas[1:]
    alpha = 1 - beta
    # The published product accumulates in float64 and rounds every entry.
    abar = np.cumprod(alpha.astype(np.float64)).astype(np.float32)
    abar_prev = np.append(np.float32(1), abar[:-1])
    variance = beta * (1 - abar_prev) / (1 - abar)
    # Through float64, since numpy's own float32 logarithm is off by a bit on some platforms.
    log_variance = np.log(np.maximum(variance.astype(np.float64), MINIMUM_VARIANCE))
    return DiscreteSchedule(
        betas=betas,
        sigmas=np.sqrt(betas),
        sqrt_alphas=sqrt_alphas,
        sqrt_alphas_cumprod=sqrt_alphas_cumprod,
        sigmas_cumprod=np.sqrt(1 - sqrt_alphas_cumprod**2),
        alphas_cumprod=abar,
        alphas_cumprod_prev=abar_prev,
        posterior_mean_coef1=beta * np.sqrt(abar_prev) / (1 - abar),
        posterior_mean_coef2=(1 - abar_prev) * np.sqrt(alpha) / (1 - abar),
        posterior_variance=variance,
        posterior_log_variance=log_variance.astype(np.float32),
    )


class CosineSchedule(NamedTuple):
    """The continuous schedule of SIDDM, equations 10 to 13, in steps of 1 / num_timesteps."""

    num_timesteps: int

    def draw_times(self, keys: Keys) -> Float[jax.Array, " b"]:
        """Draw times tau for training, float32, uniform over [0, 1] and at least 1e-4."""
        tau = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys)
        return jnp.clip(tau, SMALLEST_TAU, 1.0)

    def sampling_transitions(self) -> Transition:
        """Return the steps of sampling from noise to image, tau = 1, .., 1 / T; arrays (T,)."""
        steps = jnp.arange(self.num_timesteps, 0, -1, dtype=jnp.float32)
        step = self.transition(steps / self.num_timesteps)
        # The last step arrives at s = 0, where the schedule still has noise: sin a(0) is not 0.
        return step._replace(
            posterior_x_0=step.posterior_x_0.at[-1].set(1),
            posterior_x_tp1=step.posterior_x_tp1.at[-1].set(0),
            posterior_std=step.posterior_std.at[-1].set(0),
        )

    def transition(self, tau: Array) -> Transition:
        """Return the coefficients of the steps from s = max(tau - 1/T, 0) to tau.

        tau: float (B,), in (0, 1].
        """
        tau = jnp.asarray(tau)
        s = jnp.maximum(tau - 1 / self.num_timesteps, 0)
        a, b = _angle(s), _angle(tau)
        # This difference is b - a, without the offset that both angles share.
        difference = (tau - s) * _ANGLE_SLOPE
        # cos(pi / 2) is not 0 in floating point, and may be negative.
        cos_a, cos_b = jnp.cos(a), jnp.maximum(jnp.cos(b), 0)
        sin_a, sin_b = jnp.sin(a), jnp.sin(b)
        # Rounding must not carry beta past 1, which it reaches at tau = 1.
        beta = jnp.minimum(jnp.sin(b + a) * jnp.sin(difference) / cos_a**2, 1)
        return Transition(
            time=NETWORK_TIME_UNIT * s,
            next_time=NETWORK_TIME_UNIT * tau,
            signal=cos_a,
            noise=sin_a,
            step_signal=cos_b / cos_a,
            step_noise=jnp.sqrt(beta),
            next_signal=cos_b,
            next_noise=sin_b,
            posterior_x_0=cos_a * beta / sin_b**2,
            posterior_x_tp1=cos_b * sin_a**2 / (cos_a * sin_b**2),
            posterior_std=jnp.sqrt(beta) * sin_a / sin_b,
        )


def _angle(u: Array) -> Array:
    return (u + COSINE_OFFSET) * _ANGLE_SLOPE


Schedule = DiscreteSchedule | CosineSchedule


def make_schedule(
    name: str, num_timesteps: int, beta_min: float, beta_max: float, sampling_steps: int = 0
) -> Schedule:
    """Return a schedule by its name, in `sampling_steps` steps; 0: the num_timesteps of training.

    Raises UserError if it is not a valid one, or has no other number of steps.
    """
    if name == "cosine":
        return CosineSchedule(sampling_steps or num_timesteps)
    if sampling_steps not in (0, num_timesteps):
        raise UserError(
            f"{sampling_steps} sampling steps: a model of diffusion.schedule={name!r} only "
            f"knows the {num_timesteps} steps that it was trained with"
        )
    return discrete_schedule(name, num_timesteps, beta_min, beta_max)
