"""The objective of a run: which terms of `losses` its config adds up, on which samples.

    one chain     x_0 -> x_t -> x_{t+1}                                            real
                  x_{t+1} -> x_0' = G(x_{t+1}, t, z),  x_t' ~ q(x_t | x_{t+1}, x_0')   generated
    L_D = L_D,adv + gamma R1 + lambda (C's half of AFD, on x_t') + (weight) L_R (on x_t)
    L_G = (weight) L_G,adv + lambda A

DDGAN is the adversarial term on pairs (x_t, x_{t+1}) with R1; SIDDM that on x_t alone, with AFD and
L_R. Every row of the papers' ablations is a choice of switches between them. An objective has
three pure functions, `draw`, `discriminator_loss` and `generator_loss`; the train step knows
nothing else.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ddgan_jax import diffusion, losses, models, randomness
from ddgan_jax.diffusion import DiscreteSchedule, Schedule, Transition
from ddgan_jax.losses import Chain
from ddgan_jax.randomness import Purpose
from ddgan_jax.state import Judgement, Params

Metrics = dict[str, jax.Array]


class Augmentation(NamedTuple):
    """How the inputs of the discriminator are diffused, for the one-shot GAN of the ablation."""

    t: jax.Array  # int32 (B,)
    noise_real: jax.Array  # like x_0
    noise_fake: jax.Array  # like x_0


class DropoutKeys(NamedTuple):
    """One random key per example (B,) for each pass through a network; None: no dropout in it."""

    generator: jax.Array | None = None
    real: jax.Array | None = None
    fake: jax.Array | None = None


class Draws(NamedTuple):
    """All randomness of one network's update; each array has the examples in front (B, ...)."""

    t: jax.Array  # int32 or, of a continuous schedule, float32 (B,)
    noise_t: jax.Array  # like x_0
    noise_tp1: jax.Array  # like x_0
    z: jax.Array  # of models.latent_shape
    noise_posterior: jax.Array  # like x_0
    dropout_keys: DropoutKeys = DropoutKeys()
    noise_afd: jax.Array | None = None  # like x_0; of afd_form = "code"
    augmentation: Augmentation | None = None


class Objective(NamedTuple):
    """Pure functions and the fields of config.objective, where each is described."""

    generate: Callable[..., jax.Array]  # (params, x, t, z, labels, keys) -> output like x
    discriminate: Callable[..., Judgement]  # (params, x, t, x_{t+1} or None, labels, keys)
    schedule: Schedule
    prediction: str
    judged: str
    joint: bool
    discriminator_time: str
    adversarial_weight: float
    afd_weight: float
    afd_form: str
    afd_regression: bool
    afd_scaling: str
    denoising_weight: float
    r1_gamma: float
    latent: str
    latent_shape: tuple[int, ...]
    generator_dropout: bool
    discriminator_dropout: bool
    augmentation_schedule: DiscreteSchedule | None

    def draw(self, keys: jax.Array, shape: tuple[int, ...]) -> Draws:
        """The randomness of one update. keys: (B,), one per example; shape: of one example."""

        def noise(purpose: Purpose) -> jax.Array:
            return randomness.normal(keys, purpose, shape)

        def refined(purpose: Purpose, wanted: bool) -> jax.Array | None:
            return randomness.refine(keys, purpose) if wanted else None

        augmentation = None
        if self.augmentation_schedule is not None:
            augmentation = Augmentation(
                t=self.augmentation_schedule.draw_times(
                    randomness.refine(keys, Purpose.AUGMENTATION_TIME)
                ),
                noise_real=noise(Purpose.AUGMENTATION_REAL),
                noise_fake=noise(Purpose.AUGMENTATION_FAKE),
            )
        uses_noise_afd = self.afd_weight > 0 and self.afd_form == "code"
        return Draws(
            t=self.schedule.draw_times(randomness.refine(keys, Purpose.TIME)),
            noise_t=noise(Purpose.NOISE_T),
            noise_tp1=noise(Purpose.NOISE_TP1),
            z=randomness.latent(keys, self.latent, self.latent_shape),
            noise_posterior=noise(Purpose.POSTERIOR),
            dropout_keys=DropoutKeys(
                generator=refined(Purpose.DROPOUT, self.generator_dropout),
                real=refined(Purpose.DROPOUT_REAL, self.discriminator_dropout),
                fake=refined(Purpose.DROPOUT_FAKE, self.discriminator_dropout),
            ),
            noise_afd=noise(Purpose.AFD) if uses_noise_afd else None,
            augmentation=augmentation,
        )

    def discriminator_loss(
        self,
        params: Params,
        generator_params: Params,
        x_0: jax.Array,
        labels: jax.Array | None,
        draws: Draws,
        r1: bool,
    ) -> tuple[jax.Array, Metrics]:
        """L_D, with R1 if `r1`, and its terms. x_0: (B, ...), about [-1, 1]; labels: int (B,)."""
        step = self.schedule.transition(draws.t)
        x_t, chain = self._chain(generator_params, step, x_0, labels, draws)
        chain = jax.lax.stop_gradient(chain)
        real, fake, time = self._judged(step, x_t, chain, draws)

        metrics = {}
        judge = self._judge(params, time, chain.x_tp1, labels)
        if r1:
            penalty, on_real = losses.r1_penalty(lambda x: judge(x, draws.dropout_keys.real), real)
            metrics["r1"] = self.r1_gamma * penalty
        else:
            on_real = judge(real, draws.dropout_keys.real)
        on_fake = judge(fake, draws.dropout_keys.fake)
        metrics |= {
            "d_loss_real": losses.discriminator_real_loss(on_real.logits),
            "d_loss_fake": losses.discriminator_fake_loss(on_fake.logits),
            "d_logit_real": on_real.logits.mean(),
            "d_logit_fake": on_fake.logits.mean(),
        }
        loss = metrics["d_loss_real"] + metrics["d_loss_fake"]
        if r1:
            loss += metrics["r1"]
        if self.afd_weight > 0 and self.afd_regression:
            metrics["d_regression"] = self._regression(step, chain, on_fake)
            loss += self.afd_weight * metrics["d_regression"]
        if self.denoising_weight > 0:
            metrics["d_denoising"] = losses.denoising_loss(on_real.denoised, x_0)
            loss += self.denoising_weight * metrics["d_denoising"]
        return loss, metrics

    def generator_loss(
        self,
        params: Params,
        discriminator_params: Params,
        x_0: jax.Array,
        labels: jax.Array | None,
        draws: Draws,
    ) -> tuple[jax.Array, Metrics]:
        """L_G and its terms. x_0: (B, ...), about [-1, 1]; labels: int (B,)."""
        step = self.schedule.transition(draws.t)
        x_t, chain = self._chain(params, step, x_0, labels, draws)
        _, fake, time = self._judged(step, x_t, chain, draws)
        judge = self._judge(discriminator_params, time, chain.x_tp1, labels)
        on_fake = judge(fake, draws.dropout_keys.fake)
        metrics = {"g_loss": losses.generator_adversarial_loss(on_fake.logits)}
        loss = self.adversarial_weight * metrics["g_loss"]
        if self.afd_weight > 0:
            metrics["g_afd"] = self._afd(step, chain, on_fake, draws)
            loss += self.afd_weight * metrics["g_afd"]
        return loss, metrics

    def _chain(
        self, params: Params, step: Transition, x_0: jax.Array, labels: jax.Array, draws: Draws
    ) -> tuple[jax.Array, Chain]:
        """x_t, and the rest of the chain."""
        x_t, x_tp1 = diffusion.q_sample_pairs(step, x_0, draws.noise_t, draws.noise_tp1)
        keys = draws.dropout_keys.generator
        output = self.generate(params, x_tp1, step.next_time, draws.z, labels, keys)
        fake_x_0, fake_x_t = diffusion.denoise(
            self.prediction, step, output, x_tp1, draws.noise_posterior
        )
        return x_t, Chain(x_0, x_tp1, fake_x_0, fake_x_t)

    def _judged(
        self, step: Transition, x_t: jax.Array, chain: Chain, draws: Draws
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the discriminator judges: real, generated, and the time that it is told."""
        time = step.time if self.discriminator_time == "t" else step.next_time
        if self.judged == "x_0":
            return chain.x_0, chain.fake_x_0, time
        if self.augmentation_schedule is None:
            return x_t, chain.fake_x_t, time
        a = draws.augmentation
        level = self.augmentation_schedule.transition(a.t)
        return (
            diffusion.q_sample(level, x_t, a.noise_real),
            diffusion.q_sample(level, chain.fake_x_t, a.noise_fake),
            level.time,
        )

    def _judge(
        self, params: Params, time: jax.Array, x_tp1: jax.Array, labels: jax.Array | None
    ) -> Callable[[jax.Array, jax.Array | None], Judgement]:
        condition = x_tp1 if self.joint else None
        return lambda x, keys: self.discriminate(params, x, time, condition, labels, keys)

    def _regression(self, step: Transition, chain: Chain, on_fake: Judgement) -> jax.Array:
        squares = losses.afd_regression(step, chain.x_tp1, on_fake.regression)
        return (losses.afd_weights(self.afd_scaling, step) * squares).mean()

    def _afd(self, step: Transition, chain: Chain, on_fake: Judgement, draws: Draws) -> jax.Array:
        squares = losses.AFD_FORMS[self.afd_form](step, chain, draws.noise_afd)
        cross_entropy = (losses.afd_weights(self.afd_scaling, step) * squares).mean()
        if not self.afd_regression:
            return cross_entropy
        return cross_entropy - self._regression(step, chain, on_fake)


def make_objective(config: ConfigDict) -> Objective:
    """The objective that config.objective describes, on the networks of the config."""
    o, d = config.objective, config.diffusion
    augmentation = None
    if o.augmentation_timesteps:
        augmentation = diffusion.discrete_schedule(
            d.schedule, o.augmentation_timesteps, d.beta_min, d.beta_max
        )
    return Objective(
        generate=models.make_generate(config),
        discriminate=models.make_discriminate(config),
        schedule=diffusion.make_schedule(config),
        latent=config.generator.latent,
        latent_shape=models.latent_shape(config),
        generator_dropout=config.generator.get("dropout", 0.0) > 0,
        discriminator_dropout=config.discriminator.get("dropout", 0.0) > 0,
        augmentation_schedule=augmentation,
        **{name: o[name] for name in Objective._fields if name in o},
    )
