"""Diffuse images and draw from the Gaussian posterior, given the coefficients of a step.

    q(x_{t+1} | x_t) = N(sqrt(1 - beta_{t+1}) x_t, beta_{t+1} I)                              (1)
    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                                         (2)
    q(x_t | x_{t+1}, x_0) = N(c0_t x_0 + c1_t x_{t+1}, v_t I)                                  (3)

A `Transition` holds the coefficients; `schedules` derives them for every schedule. All functions
take a batch of arrays of one shape, and coefficients of shape (B,).
"""

import functools
import operator

import jax.numpy as jnp
from jaxtyping import Float

from ddgan_jax.schedules import Transition
from ddgan_jax.state import AnyArray as Array

# Images, or anything else that is diffused, such as points.
Values = Float[Array, " b *shape"]


def _per_example(coefficient: Array, x: Array) -> Array:
    """Return coefficients (B,) as (B, 1, ..), to multiply arrays of x's rank."""
    return jnp.reshape(coefficient, (-1,) + (1,) * (jnp.ndim(x) - 1))


def _combine(*terms: tuple[Array, Values]) -> Values:
    products = [_per_example(coefficient, x) * x for coefficient, x in terms]
    return functools.reduce(operator.add, products)


def q_sample(step: Transition, x_0: Values, noise: Values) -> Values:
    """Return x_t ~ q(x_t | x_0), equation 2. noise ~ N(0, I)."""
    return _combine((step.signal, x_0), (step.noise, noise))


def q_sample_pairs(
    step: Transition, x_0: Values, noise_t: Values, noise_tp1: Values
) -> tuple[Values, Values]:
    """Return (x_t, x_{t+1}) of one forward chain, equations 2 and 1."""
    # The noisier sample continues the chain of the other one. Two independent draws from equation 2
    # would have the right marginals, but would not be a pair that a discriminator of pairs can
    # learn from.
    x_t = q_sample(step, x_0, noise_t)
    return x_t, forward_sample(step, x_t, noise_tp1)


def forward_mean(step: Transition, x_t: Values) -> Values:
    """Return the mean of q(x_{t+1} | x_t), equation 1."""
    return _combine((step.step_signal, x_t))


def forward_sample(step: Transition, x_t: Values, noise: Values) -> Values:
    """Return x_{t+1} ~ q(x_{t+1} | x_t), equation 1. noise ~ N(0, I)."""
    return _combine((step.step_signal, x_t), (step.step_noise, noise))


def posterior_mean(step: Transition, x_0: Values, x_tp1: Values) -> Values:
    """Return the mean of q(x_t | x_{t+1}, x_0), equation 3."""
    return _combine((step.posterior_x_0, x_0), (step.posterior_x_tp1, x_tp1))


def posterior_sample(step: Transition, x_0: Values, x_tp1: Values, noise: Values) -> Values:
    """Return x_t ~ q(x_t | x_{t+1}, x_0), equation 3. At t = 0 the noise has no effect."""
    # No mask for t = 0 is needed: the schedules make this coefficient exactly 0 there.
    return posterior_mean(step, x_0, x_tp1) + _combine((step.posterior_std, noise))


def predicted_x_0(step: Transition, noise: Values, x_tp1: Values) -> Values:
    """Return x_0 where x_{t+1} holds this noise: equation 2 at t + 1, solved for x_0."""
    return (x_tp1 - _combine((step.next_noise, noise))) / _per_example(step.next_signal, x_tp1)


def denoise(
    prediction: str, step: Transition, output: Values, x_tp1: Values, noise: Values
) -> tuple[Values | None, Values]:
    """Return (x_0, x_t) of one denoising step from the generator's output.

    prediction: the meaning of the output. "x_0" and "noise" go through the posterior, equation 3.
    "x_t" is the sample itself (the paper's ablation "direct denoising"), for which x_0 is None.
    """
    if prediction == "x_t":
        return None, jnp.asarray(output)
    x_0 = predicted_x_0(step, output, x_tp1) if prediction == "noise" else output
    return x_0, posterior_sample(step, x_0, x_tp1, noise)
