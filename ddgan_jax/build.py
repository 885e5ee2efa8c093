"""Build the objects of a run from its config.

This is where the config ends: core functions are handed the objects and know nothing of it.
"""

import jax
import optax
from ml_collections import ConfigDict

from ddgan_jax import haar, models, schedules, train_step
from ddgan_jax.config import diffused_shape, method_title
from ddgan_jax.methods import METHODS, Objective
from ddgan_jax.randomness import Purpose
from ddgan_jax.sampling import Sampler
from ddgan_jax.schedules import DiscreteSchedule, Schedule
from ddgan_jax.state import TrainState
from ddgan_jax.train_step import Optimizers, TrainStep, cosine_staircase


def schedule(config: ConfigDict, num_timesteps: int = 0) -> Schedule:
    """Return the noise schedule of config.diffusion.

    num_timesteps: the number of steps; 0: that of training. Raises UserError if the schedule is not
    valid, or knows no other number of steps than that of training.
    """
    d = config.diffusion
    return schedules.make_schedule(
        d.schedule, d.num_timesteps, d.beta_min, d.beta_max, num_timesteps
    )


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of one image, or of one point of the toy sets."""
    return (config.data.image_size, config.data.image_size, config.data.channels)


def space(config: ConfigDict) -> haar.Space:
    """Return the space of config.diffusion in which images are diffused."""
    d = config.diffusion
    return haar.Bands(d.haar_order) if d.space == "haar" else haar.Pixels()


def sampler(config: ConfigDict) -> Sampler:
    """Return the sampler in config.sampling.num_steps steps. Raises UserError as `schedule`."""
    return Sampler(
        generate=models.generator(config),
        schedule=schedule(config, config.sampling.num_steps),
        image_shape=image_shape(config),
        space=space(config),
        diffused_shape=diffused_shape(config),
        latent=config.generator.latent,
        latent_shape=models.latent_shape(config),
        prediction=config.objective.prediction,
    )


def objective(config: ConfigDict) -> Objective:
    """Return the method of config.objective on the networks of the config."""
    o = config.objective
    method = METHODS[method_name(config)]
    return method(
        generate=models.generator(config),
        discriminate=models.discriminator(config),
        schedule=schedule(config),
        latent=config.generator.latent,
        latent_shape=models.latent_shape(config),
        # Networks without a field `dropout`, such as those of points, get no keys for it.
        generator_dropout=config.generator.get("dropout", 0.0) > 0,
        discriminator_dropout=config.discriminator.get("dropout", 0.0) > 0,
        augmentation_schedule=_augmentation_schedule(config),
        # The switches of a method have the names of their fields in config.objective, so that a
        # method with a further switch needs no line here.
        **{name: o[name] for name in method.__dataclass_fields__ if name in o},
    )


def method_name(config: ConfigDict) -> str:
    """Return the key of the config's method in METHODS."""
    return method_title(config).lower()


def _augmentation_schedule(config: ConfigDict) -> DiscreteSchedule | None:
    d, levels = config.diffusion, config.objective.augmentation_timesteps
    if not levels:
        return None
    # The ablation diffuses the discriminator's inputs with the same kind of noise as the chain, in
    # a number of levels of its own.
    return schedules.discrete_schedule(d.schedule, levels, d.beta_min, d.beta_max)


def learning_rate(config: ConfigDict, network: str) -> optax.Schedule:
    """Return the learning rate as a function of the step. network: "generator" or another."""
    o = config.optimizer
    return cosine_staircase(
        o[f"{network}_learning_rate"],
        o.final_learning_rate,
        o.decay_steps,
        o.decay_interval_steps,
    )


def optimizers(config: ConfigDict) -> Optimizers:
    """Return Adam for both networks, each with its own learning rate."""
    o = config.optimizer

    def adam(network: str) -> optax.GradientTransformation:
        return optax.adam(learning_rate(config, network), b1=o.beta1, b2=o.beta2, eps=1e-8)

    return Optimizers(adam("generator"), adam("discriminator"))


def step(config: ConfigDict, *, r1: bool) -> TrainStep:
    """Return the train step for one device, with the R1 penalty or without."""
    return TrainStep(
        objective(config),
        optimizers(config),
        ema_decay=config.optimizer.ema_decay,
        flip=config.data.flip,
        microbatches=config.train.microbatches,
        r1=r1,
        space=space(config),
    )


def r1_is_due(config: ConfigDict, step: int) -> bool:
    """Return whether the step after `step` finished ones computes the R1 penalty."""
    return train_step.r1_is_due(step, config.objective.r1_gamma, config.objective.r1_interval)


def initial_state(config: ConfigDict, key: jax.Array) -> TrainState:
    """Return the state at step 0. key: of the run's seed."""

    key = jax.random.fold_in(key, Purpose.INITIAL_PARAMS)
    return train_step.initial_state(*models.init_params(config, key), optimizers(config))
