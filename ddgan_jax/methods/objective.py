"""Share what all methods need: random draws, one pair of samples, the discriminator's passes.

    real          x_0 -> x_t -> x_{t+1}                                          one forward chain
    generated     x_{t+1} -> x_0' = G(x_{t+1}, t, z),   x_t' ~ q(x_t | x_{t+1}, x_0')

A discriminator compares x_t with x_t', given x_{t+1} (DDGAN) or not (SIDDM). The switches of the
papers' ablations are fields: the two clean images may be compared instead, and a one-shot GAN may
diffuse both images before they are compared.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Float, Int

from ddgan_jax import diffusion, losses, randomness
from ddgan_jax.losses import Chain
from ddgan_jax.randomness import Purpose
from ddgan_jax.schedules import DiscreteSchedule, Schedule, Transition
from ddgan_jax.state import AnyArray, Images, Judgement, Keys, Labels, Metrics, Params


class Augmentation(NamedTuple):
    """The diffusion of the discriminator's inputs, for the one-shot GAN of the ablation."""

    t: Int[AnyArray, " b"]
    noise_real: Images
    noise_fake: Images


class DropoutKeys(NamedTuple):
    """One random key per example for each pass through a network; None: it has no dropout."""

    generator: Keys | None = None
    real: Keys | None = None
    fake: Keys | None = None


class Draws(NamedTuple):
    """All randomness of one network's update; each array has the examples in front."""

    # Integers of a discrete schedule, floats of a continuous one.
    t: Float[AnyArray, " b"] | Int[AnyArray, " b"]
    noise_t: Images
    noise_tp1: Images
    z: Float[AnyArray, "b *latent l"]
    noise_posterior: Images
    dropout_keys: DropoutKeys = DropoutKeys()
    # For SIDDM's auxiliary forward diffusion in the form "code".
    noise_afd: Images | None = None
    augmentation: Augmentation | None = None


class Pair(NamedTuple):
    """A real and a generated sample, and the chains that they come from."""

    step: Transition
    chain: Chain
    # The two inputs of the discriminator.
    real: Images
    fake: Images
    # The time that the discriminator is told, (B,).
    time: AnyArray


# Equality is identity, because JAX looks compiled programs up by the hash of a function, and the
# arrays of a schedule have none.
@dataclasses.dataclass(frozen=True, eq=False)
class Objective(abc.ABC):
    """The networks and the switches of config.objective, where each is described.

    generate, discriminate: as `models.registry` says. latent, latent_shape: the distribution of z,
    as in `randomness.latent`. augmentation_schedule: the levels of `Augmentation`, None without it.
    """

    generate: Callable[..., jax.Array]
    discriminate: Callable[..., Judgement]
    schedule: Schedule
    prediction: str
    judged: str
    joint: bool
    discriminator_time: str
    adversarial_weight: float
    # It may be traced, where one program serves many values.
    r1_gamma: float | Float[AnyArray, ""]
    latent: str
    latent_shape: tuple[int, ...]
    generator_dropout: bool
    discriminator_dropout: bool
    augmentation_schedule: DiscreteSchedule | None

    def draw(self, keys: Keys, shape: tuple[int, ...]) -> Draws:
        """Return the randomness of one update. shape: of one example."""

        def noise(purpose: Purpose) -> jax.Array:
            return randomness.normal(keys, purpose, shape)

        def dropout(purpose: Purpose, wanted: bool) -> jax.Array | None:
            return randomness.refine(keys, purpose) if wanted else None

        # Each draw has a purpose of its own, so that switching one on changes none of the others.
        augmentation = None
        if self.augmentation_schedule is not None:
            time_keys = randomness.refine(keys, Purpose.AUGMENTATION_TIME)
            augmentation = Augmentation(
                t=self.augmentation_schedule.draw_times(time_keys),
                noise_real=noise(Purpose.AUGMENTATION_REAL),
                noise_fake=noise(Purpose.AUGMENTATION_FAKE),
            )
        return Draws(
            t=self.schedule.draw_times(randomness.refine(keys, Purpose.TIME)),
            noise_t=noise(Purpose.NOISE_T),
            noise_tp1=noise(Purpose.NOISE_TP1),
            z=randomness.latent(keys, self.latent, self.latent_shape),
            noise_posterior=noise(Purpose.POSTERIOR),
            dropout_keys=DropoutKeys(
                generator=dropout(Purpose.DROPOUT, self.generator_dropout),
                real=dropout(Purpose.DROPOUT_REAL, self.discriminator_dropout),
                fake=dropout(Purpose.DROPOUT_FAKE, self.discriminator_dropout),
            ),
            augmentation=augmentation,
        )

    @abc.abstractmethod
    def discriminator_loss(
        self,
        params: Params,
        generator_params: Params,
        x_0: Images,
        labels: Labels,
        draws: Draws,
        r1: bool,
    ) -> tuple[jax.Array, Metrics]:
        """Return the scalar L_D and its terms. r1: with the R1 penalty. x_0: about [-1, 1]."""

    @abc.abstractmethod
    def generator_loss(
        self,
        params: Params,
        discriminator_params: Params,
        x_0: Images,
        labels: Labels,
        draws: Draws,
    ) -> tuple[jax.Array, Metrics]:
        """Return the scalar L_G and its terms. x_0: about [-1, 1]."""

    def pair(self, params: Params, x_0: Images, labels: Labels, draws: Draws) -> Pair:
        """Return a real and a generated sample for given draws. params: of the generator."""
        step = self.schedule.transition(draws.t)
        # One forward chain of the real images, and the generated sample from its noisier end.
        x_t, x_tp1 = diffusion.q_sample_pairs(step, x_0, draws.noise_t, draws.noise_tp1)
        keys = draws.dropout_keys.generator
        output = self.generate(params, x_tp1, step.next_time, draws.z, labels, keys)
        fake_x_0, fake_x_t = diffusion.denoise(
            self.prediction, step, output, x_tp1, draws.noise_posterior
        )
        # The images that are compared, and the time of them that the discriminator is told.
        real, fake = x_t, fake_x_t
        time = step.time if self.discriminator_time == "t" else step.next_time
        a = draws.augmentation
        if self.judged == "x_0" and fake_x_0 is not None:
            real, fake = x_0, fake_x_0
        elif self.augmentation_schedule is not None and a is not None:
            level = self.augmentation_schedule.transition(a.t)
            real = diffusion.q_sample(level, x_t, a.noise_real)
            fake = diffusion.q_sample(level, fake_x_t, a.noise_fake)
            time = level.time
        return Pair(step, Chain(x_0, x_tp1, fake_x_0, fake_x_t), real, fake, time)

    def judge_both(
        self, params: Params, pair: Pair, labels: Labels, draws: Draws, r1: bool
    ) -> tuple[Judgement, Judgement, Metrics]:
        """Return the judgements of the real and the generated images, and gamma R1 if `r1`.

        params: of the discriminator. The penalty reads the forward pass of the real images, which
        is therefore made once.
        """
        keys = draws.dropout_keys
        # Two passes and not one over both batches: the minibatch standard deviation compares the
        # images of a pass with each other.
        if not r1:
            real = self.judge(params, pair, pair.real, labels, keys.real)
            return real, self.judge(params, pair, pair.fake, labels, keys.fake), {}
        penalty, real = losses.r1_penalty(
            lambda x: self.judge(params, pair, x, labels, keys.real), pair.real
        )
        fake = self.judge(params, pair, pair.fake, labels, keys.fake)
        return real, fake, {"r1": self.r1_gamma * penalty}

    def judge(
        self, params: Params, pair: Pair, x: Images, labels: Labels, keys: Keys | None
    ) -> Judgement:
        """Return D(x, ..), told x_{t+1} of the pair where the method compares pairs."""
        condition = pair.chain.x_tp1 if self.joint else None
        return self.discriminate(params, x, pair.time, condition, labels, keys)
