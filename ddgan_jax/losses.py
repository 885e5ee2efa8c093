"""Compute the terms beside the adversarial ones: R1, forward diffusion, denoising.

A generator predicts x_0' = G(x_{t+1}, t, z) and thereby a sample x_t' ~ q(x_t | x_{t+1}, x_0') of
the denoising distribution. The discriminator D gives logits. Its adversarial losses stand in
`methods.ddgan` and `methods.siddm`; with R1 it is also kept flat around real samples:

    R1 = E || grad_{x_t} sum_b D(x_t, ..)_b ||^2 / 2                                            (1)

The gradient is that of the sum over the batch: a discriminator that compares the examples of a
batch (minibatch standard deviation) gives cross terms, which belong to it.

Auxiliary forward diffusion (SIDDM). D on single images matches the marginals of x_t alone; that
x_t' belongs to its x_{t+1} is asked for by KL(p(x_{t+1} | x_t') || q(x_{t+1} | x_t)). Here q is the
known forward step N(sqrt(1 - beta) x_t, beta I), and p is bounded by the best Gaussian of the same
variance, whose mean sqrt(1 - beta) C(x_t') a second head C of the discriminator learns:

    A = E w (|| x_{t+1} - sqrt(1 - beta) x_t' ||^2 - || x_{t+1} - sqrt(1 - beta) C(x_t') ||^2)  (2)

G minimises lambda A through x_t'; C minimises its half, lambda E w || x_{t+1} - .. C ||^2. With
w = 1 / (2 beta) this is a bound of the KL from below, for each entry of the image, which compares
the means. Given the best C it is 0 if p = q and never negative, since C may be the identity. The
second half is a choice, and the first half has three forms:

    kl     || x_{t+1} - sqrt(1 - beta) x_t' ||^2                                                (3)
    code   || x_{t+1} - x_{t+1}' ||^2,  x_{t+1}' ~ q(x_{t+1} | x_t')   (the authors' toy code) (4)
    recon  (1 - beta) c0^2 || x_0' - x_0 ||^2                                                   (5)

(3) is (2) as it stands, and (4) differs by noise and a constant. Without C, their least x_0' is
x_{t+1} / sqrt(abar_{t+1}), which does not denoise. (5) has the expected gradient of
(1 - beta) || x_t' - x_t ||^2 for the real x_t of the same chain: an L2 reconstruction. Without C,
its least x_0' is E[x_0 | x_{t+1}], which denoises, and D must keep x_0' from being a mean. With C
it is no divergence: A falls below its value for p = q when x_t' tells nothing of x_{t+1}.

Regulariser (SIDDM): a third head R of the discriminator denoises real images,

    L_R = E || R(x_t) - x_0 ||^2                                                                (6)

Squares are averaged over the entries of an image, expectations over the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ddgan_jax import diffusion
from ddgan_jax.schedules import Transition
from ddgan_jax.state import AnyArray, Images, Judgement

# The least beta in the weight 1 / (2 beta), which grows without bound for small steps.
SMALLEST_BETA = 1e-3

PerExample = Float[jax.Array, " b"]
Scalar = Float[jax.Array, ""]


def r1_penalty(
    discriminate: Callable[[jax.Array], Judgement], x_t: Images
) -> tuple[Scalar, Judgement]:
    """Return R1 of equation 1, and D(x_t) of the same forward pass.

    The penalty is the sum of squares, not a norm, whose gradient is undefined where D is constant.
    """

    def total(x: jax.Array) -> tuple[jax.Array, Judgement]:
        judgement = discriminate(x)
        return judgement.logits.sum(), judgement

    # One backward pass gives the gradients of all examples.
    gradient, judgement = jax.grad(total, has_aux=True)(x_t)
    squares = jnp.square(gradient).sum(tuple(range(1, gradient.ndim)))
    return 0.5 * squares.mean(), judgement


class Chain(NamedTuple):
    """One forward chain of real images, and what the generator made of its noisier end."""

    x_0: Images
    x_tp1: Images
    # None where the generator predicts x_t itself.
    fake_x_0: Images | None
    fake_x_t: Images


def afd_recon(step: Transition, chain: Chain, noise: Images | None) -> PerExample:
    """Return equation 5, the mean over each image's entries. noise: not used."""
    del noise
    # The checks of a config keep generators that predict x_t away from this form.
    assert chain.fake_x_0 is not None
    weight = (step.step_signal * step.posterior_x_0) ** 2
    return weight * mean_square(chain.fake_x_0 - chain.x_0)


def afd_kl(step: Transition, chain: Chain, noise: Images | None) -> PerExample:
    """Return equation 3, likewise."""
    del noise
    return mean_square(chain.x_tp1 - diffusion.forward_mean(step, chain.fake_x_t))


def afd_code(step: Transition, chain: Chain, noise: Images) -> PerExample:
    """Return equation 4, likewise. noise ~ N(0, I): like x_{t+1}."""
    return mean_square(chain.x_tp1 - diffusion.forward_sample(step, chain.fake_x_t, noise))


# All forms have one signature, although the noise is drawn for "code" alone.
AFD_FORMS: dict[str, Callable[..., PerExample]] = {
    "recon": afd_recon,
    "kl": afd_kl,
    "code": afd_code,
}


def afd_regression(step: Transition, x_tp1: Images, regression: Images) -> PerExample:
    """Return || x_{t+1} - sqrt(1 - beta) C ||^2, the second half of equation 2."""
    return mean_square(x_tp1 - diffusion.forward_mean(step, regression))


def afd_weights(scaling: str, step: Transition) -> Float[AnyArray, " b"] | float:
    """Return w of equation 2: 1 for "none"; 1 / (2 max(beta, 1e-3)) for "likelihood"."""
    if scaling == "none":
        return 1.0
    # A transition holds sqrt(beta).
    return 0.5 / jnp.maximum(jnp.square(step.step_noise), SMALLEST_BETA)


def denoising_loss(denoised: Images, x_0: Images) -> Scalar:
    """Return equation 6. denoised: R(x_t) of real images."""
    return mean_square(denoised - x_0).mean()


def mean_square(x: Images) -> PerExample:
    """Return the mean of the squares of each example's entries."""
    return jnp.square(x).mean(tuple(range(1, x.ndim)))
