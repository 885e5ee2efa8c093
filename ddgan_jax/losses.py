"""Objectives: what the two networks of a training step minimise.

DDGAN (Xiao et al. 2022) fits p(x_t | x_{t+1}) to the true denoising distribution, for all t, by
the non-saturating GAN loss on pairs. With x_0 = G(x_{t+1}, t, z), x'_t ~ q(x_t | x_{t+1}, x_0)
and softplus(a) = log(1 + e^a):

    L_D = E softplus(-D(x_t, t, x_{t+1})) + E softplus(D(x'_t, t, x_{t+1})) + R1                (1)
    R1  = gamma / 2  E || grad_{x_t} sum_b D(x_t, t, x_{t+1})_b ||^2                            (2)
    L_G = E softplus(-D(x'_t, t, x_{t+1}))                                                      (3)

The gradient in (2) is that of the sum over the batch: the discriminator compares the examples of
a batch (minibatch standard deviation), so that cross terms belong to it. R1 is computed on the
real pairs of every r1_interval-th step and is not scaled up for it.

An objective is a value with three pure functions, `draw`, `discriminator_loss` and
`generator_loss`; the train step knows nothing else of a method.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ddgan_jax import diffusion, models, randomness
from ddgan_jax.diffusion import DiscreteSchedule
from ddgan_jax.randomness import Purpose
from ddgan_jax.types import Params

Metrics = dict[str, jax.Array]


def discriminator_real_loss(logits: jax.Array) -> jax.Array:
    """E softplus(-D) on real examples, scalar. logits: any shape."""
    return jax.nn.softplus(-logits).mean()


def discriminator_fake_loss(logits: jax.Array) -> jax.Array:
    """E softplus(D) on generated examples, scalar. logits: any shape."""
    return jax.nn.softplus(logits).mean()


def generator_adversarial_loss(logits: jax.Array) -> jax.Array:
    """The non-saturating E softplus(-D) on generated examples, scalar. logits: any shape."""
    return jax.nn.softplus(-logits).mean()


def r1_penalty(
    discriminate: Callable[[jax.Array], jax.Array], x_t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """|| grad sum_b D(x_t)_b ||^2 / 2 averaged over the batch, without gamma (equation 2).

    Returns (penalty, logits): the scalar, and D(x_t) of the same forward pass. x_t: (B, ...).
    The sum of squares, not a norm: the gradient of a norm is undefined where D is constant.
    """

    def total(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = discriminate(x)
        return logits.sum(), logits

    gradient, logits = jax.grad(total, has_aux=True)(x_t)
    squares = jnp.square(gradient).sum(tuple(range(1, gradient.ndim)))
    return 0.5 * squares.mean(), logits


class Draws(NamedTuple):
    """All randomness of one network's update; each array has the examples in front (B, ...)."""

    t: jax.Array  # int32 (B,)
    noise_t: jax.Array  # like x_0
    noise_tp1: jax.Array  # like x_0
    z: jax.Array  # (B, L)
    noise_posterior: jax.Array  # like x_0
    dropout_keys: jax.Array | None  # (B,) keys; None: no dropout
    augmentation: "Augmentation | None" = None


class Augmentation(NamedTuple):
    """How the inputs of the discriminator are diffused, for the one-shot GAN of the ablation."""

    t: jax.Array  # int32 (B,)
    noise_real: jax.Array  # like x_0
    noise_fake: jax.Array  # like x_0


def draw_latent(keys: jax.Array, latent: str, dim: int) -> jax.Array:
    """z (B, dim): standard normal, or zeros for latent = "none". keys: (B,)."""
    if latent == "none":
        return jnp.zeros((len(keys), dim), jnp.float32)
    return randomness.normal(keys, Purpose.LATENT, (dim,))


class DDGAN(NamedTuple):
    """The objective of equations 1 to 3, and the variants of the paper's ablation table."""

    generate: Callable[..., jax.Array]  # (params, x_{t+1}, t, z, dropout_keys) -> output
    discriminate: Callable[..., jax.Array]  # (params, x_t, t, x_{t+1}) -> logits (B,)
    schedule: DiscreteSchedule
    prediction: str
    latent: str
    latent_dim: int
    dropout: bool
    r1_gamma: float
    augmentation_schedule: DiscreteSchedule | None

    def draw(self, keys: jax.Array, image_shape: tuple[int, ...]) -> Draws:
        """The randomness of one update. keys: (B,), one per example; image_shape: (H, W, C)."""
        augmentation = None
        if self.augmentation_schedule is not None:
            augmentation = Augmentation(
                t=self.augmentation_schedule.draw_times(
                    randomness.refine(keys, Purpose.AUGMENTATION_TIME)
                ),
                noise_real=randomness.normal(keys, Purpose.AUGMENTATION_REAL, image_shape),
                noise_fake=randomness.normal(keys, Purpose.AUGMENTATION_FAKE, image_shape),
            )
        return Draws(
            t=self.schedule.draw_times(randomness.refine(keys, Purpose.TIME)),
            noise_t=randomness.normal(keys, Purpose.NOISE_T, image_shape),
            noise_tp1=randomness.normal(keys, Purpose.NOISE_TP1, image_shape),
            z=draw_latent(keys, self.latent, self.latent_dim),
            noise_posterior=randomness.normal(keys, Purpose.POSTERIOR, image_shape),
            dropout_keys=randomness.refine(keys, Purpose.DROPOUT) if self.dropout else None,
            augmentation=augmentation,
        )

    def discriminator_loss(
        self, params: Params, generator_params: Params, x_0: jax.Array, draws: Draws, r1: bool
    ) -> tuple[jax.Array, Metrics]:
        """Equation 1, with R1 if `r1`, and its terms. x_0: (B, H, W, C) in [-1, 1]."""
        x_t, x_tp1 = self._real_pair(x_0, draws)
        fake = jax.lax.stop_gradient(self._fake(generator_params, x_tp1, draws))
        real, fake, t = self._augment(x_t, fake, draws)

        metrics = {}
        if r1:
            penalty, real_logits = r1_penalty(
                lambda x: self.discriminate(params, x, t, x_tp1), real
            )
            metrics["r1"] = self.r1_gamma * penalty
        else:
            real_logits = self.discriminate(params, real, t, x_tp1)
        fake_logits = self.discriminate(params, fake, t, x_tp1)
        metrics |= {
            "d_loss_real": discriminator_real_loss(real_logits),
            "d_loss_fake": discriminator_fake_loss(fake_logits),
            "d_logit_real": real_logits.mean(),
            "d_logit_fake": fake_logits.mean(),
        }
        loss = metrics["d_loss_real"] + metrics["d_loss_fake"]
        return (loss + metrics["r1"] if r1 else loss), metrics

    def generator_loss(
        self, params: Params, discriminator_params: Params, x_0: jax.Array, draws: Draws
    ) -> tuple[jax.Array, Metrics]:
        """Equation 3. x_0: (B, H, W, C) in [-1, 1]."""
        x_t, x_tp1 = self._real_pair(x_0, draws)
        fake = self._fake(params, x_tp1, draws)
        _, fake, t = self._augment(x_t, fake, draws)
        loss = generator_adversarial_loss(self.discriminate(discriminator_params, fake, t, x_tp1))
        return loss, {"g_loss": loss}

    def _real_pair(self, x_0: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array]:
        step = self.schedule.transition(draws.t)
        return diffusion.q_sample_pairs(step, x_0, draws.noise_t, draws.noise_tp1)

    def _fake(self, params: Params, x_tp1: jax.Array, draws: Draws) -> jax.Array:
        output = self.generate(params, x_tp1, draws.t, draws.z, draws.dropout_keys)
        step = self.schedule.transition(draws.t)
        return diffusion.denoise(self.prediction, step, output, x_tp1, draws.noise_posterior)

    def _augment(
        self, real: jax.Array, fake: jax.Array, draws: Draws
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the discriminator sees: real, fake, and the time it is told."""
        if self.augmentation_schedule is None:
            return real, fake, draws.t
        a = draws.augmentation
        level = self.augmentation_schedule.transition(a.t)
        return (
            diffusion.q_sample(level, real, a.noise_real),
            diffusion.q_sample(level, fake, a.noise_fake),
            a.t,
        )


def _ddgan(config: ConfigDict) -> DDGAN:
    generator = models.build_generator(config)
    discriminator = models.build_discriminator(config)
    o, d = config.objective, config.diffusion
    augmentation = None
    if o.augmentation_timesteps:
        augmentation = diffusion.discrete_schedule(
            d.schedule, o.augmentation_timesteps, d.beta_min, d.beta_max
        )
    return DDGAN(
        generate=lambda params, x, t, z, keys: generator.apply(
            {"params": params}, x, t, z, dropout_keys=keys
        ),
        discriminate=lambda params, *inputs: discriminator.apply({"params": params}, *inputs),
        schedule=diffusion.make_schedule(config),
        prediction=o.prediction,
        latent=config.generator.latent,
        latent_dim=config.generator.latent_dim,
        dropout=config.generator.dropout > 0,
        r1_gamma=o.r1_gamma,
        augmentation_schedule=augmentation,
    )


_OBJECTIVES = {"ddgan": _ddgan}


def make_objective(config: ConfigDict) -> DDGAN:
    """The objective that config.objective names."""
    return _OBJECTIVES[config.objective.name](config)
