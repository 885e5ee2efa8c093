"""One training step as a pure function of (state, batch, key), for one device of many.

A step updates the discriminator, then the generator against the updated discriminator on the
same images with fresh draws, then the moving average of the generator. Devices meet only in the
mean of gradients and metrics over the axis "data", and, where each keeps a part of the optimisers'
state (ZeRO, stage 1; Rajbhandari et al. 2020), in gathering the new parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from ddgan_jax import models, randomness
from ddgan_jax.objective import Draws, Metrics, Objective, make_objective
from ddgan_jax.randomness import Purpose
from ddgan_jax.state import Batch, DiscriminatorState, GeneratorState, Params, PyTree, TrainState

AXIS = "data"
Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


class Optimizers(NamedTuple):
    """The gradient transformations of both networks."""

    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def learning_rate_schedule(config: ConfigDict, initial: float) -> Callable[[jax.Array], jax.Array]:
    """Return the learning rate as a function of the step.

    It goes from `initial` to optimizer.final_learning_rate on a cosine over decay_steps, held
    constant for decay_interval_steps at a time (an epoch, as the published runs do), and stays
    there, however long a run goes on. Without decay_steps it is constant.
    """
    o = config.optimizer

    def cosine(step: jax.Array) -> jax.Array:
        tread = step // o.decay_interval_steps * o.decay_interval_steps
        fraction = 0.5 * (1 + jnp.cos(jnp.pi * tread / o.decay_steps))
        rate = o.final_learning_rate + (initial - o.final_learning_rate) * fraction
        return jnp.where(step < o.decay_steps, rate, o.final_learning_rate)

    return cosine if o.decay_steps else optax.constant_schedule(initial)


def make_optimizers(config: ConfigDict) -> Optimizers:
    """Return Adam for both networks, each with its own learning rate."""
    o = config.optimizer
    rates = Optimizers(o.generator_learning_rate, o.discriminator_learning_rate)
    return Optimizers(
        *(
            optax.adam(learning_rate_schedule(config, rate), b1=o.beta1, b2=o.beta2, eps=1e-8)
            for rate in rates
        )
    )


def init_state(config: ConfigDict, key: jax.Array) -> TrainState:
    """Return the state at step 0. key: of the run's seed."""
    init_key = jax.random.fold_in(key, Purpose.INITIAL_PARAMS)
    generator, discriminator = models.init_params(config, init_key)
    optimizers = make_optimizers(config)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=GeneratorState(
            params=generator,
            ema_params=jax.tree.map(jnp.copy, generator),
            opt_state=optimizers.generator.init(generator),
        ),
        discriminator=DiscriminatorState(
            params=discriminator, opt_state=optimizers.discriminator.init(discriminator)
        ),
    )


def to_float_images(image: jax.Array) -> jax.Array:
    """uint8 [0, 255] -> float32 [-1, 1]. Points of the toy sets are floats already: as they are."""
    if image.dtype != jnp.uint8:
        return image
    return image.astype(jnp.float32) / 127.5 - 1.0


def update(
    objective: Objective,
    optimizers: Optimizers,
    ema_decay: float,
    microbatches: int,
    r1: bool,
    state: TrainState,
    x_0: jax.Array,
    labels: jax.Array | None,
    discriminator_draws: Draws,
    generator_draws: Draws,
) -> tuple[TrainState, Metrics]:
    """The step for given draws. x_0: (B, H, W, C), about [-1, 1]; r1: with the R1 penalty.

    labels: int (B,), read only by networks that are told the class. Must run under a mapping that
    names the axis "data". Returned metrics are scalars, equal on all devices.
    """
    discriminator, generator = state.discriminator, state.generator

    gradients, metrics = mean_gradient(
        lambda params, *examples: objective.discriminator_loss(
            params, generator.params, *examples, r1
        ),
        discriminator.params,
        (x_0, labels, discriminator_draws),
        microbatches,
    )
    params, opt_state, d_norm = _apply(optimizers.discriminator, gradients, discriminator)
    discriminator = DiscriminatorState(params, opt_state)

    gradients, generator_metrics = mean_gradient(
        lambda params, *examples: objective.generator_loss(params, discriminator.params, *examples),
        generator.params,
        (x_0, labels, generator_draws),
        microbatches,
    )
    params, opt_state, g_norm = _apply(optimizers.generator, gradients, generator)
    ema_params = _moving_average(generator.ema_params, params, ema_decay, state.step)

    metrics = lax.pmean(metrics | generator_metrics, AXIS)
    metrics |= {"d_gradient_norm": d_norm, "g_gradient_norm": g_norm}
    new_state = TrainState(
        state.step + 1, GeneratorState(params, ema_params, opt_state), discriminator
    )
    return new_state, metrics


def mean_gradient(
    loss: Callable[..., tuple[jax.Array, Metrics]],
    params: Params,
    examples: tuple[PyTree, ...],
    microbatches: int,
) -> tuple[Params, Metrics]:
    """The gradient of loss(params, *examples) in params, and its metrics, averaged over parts.

    examples: trees of arrays with the B examples of this device in front, B divisible by
    `microbatches`. The parts are consecutive examples, one after the other, so that only one part's
    activations exist at a time. Equal to the gradient of the whole up to rounding, for a loss that
    averages over examples; a minibatch standard deviation of "spread" groups is not of that kind.
    """
    gradient = jax.grad(loss, has_aux=True)
    if microbatches == 1:
        return gradient(params, *examples)

    def add(total: PyTree, part: tuple[PyTree, ...]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *part)), None

    parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), examples)
    result = jax.eval_shape(gradient, params, *jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), result)
    total, _ = lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / microbatches, total)


def _apply(
    optimizer: optax.GradientTransformation,
    gradients: Params,
    network: GeneratorState | DiscriminatorState,
) -> tuple[Params, PyTree, jax.Array]:
    """New parameters and optimiser state, and the norm of the gradient over all devices."""
    gradients = lax.pmean(gradients, AXIS)
    moments = optax.tree.get(network.opt_state, "mu", network.params)
    mine, my_gradients = (
        jax.tree.map(_part_like, tree, moments) for tree in (network.params, gradients)
    )
    updates, opt_state = optimizer.update(my_gradients, network.opt_state, mine)
    params = jax.tree.map(_whole_like, optax.apply_updates(mine, updates), network.params)
    return params, opt_state, optax.tree.norm(gradients)


def _moving_average(ema: Params, params: Params, decay: float, step: jax.Array) -> Params:
    # The average starts from the parameters after the first update, not from the initial ones.
    decay = jnp.where(step == 0, 0.0, decay)
    mine = jax.tree.map(_part_like, params, ema)
    return jax.tree.map(lambda e, p: (decay * e + (1 - decay) * p).astype(p.dtype), ema, mine)


def _part_like(whole: jax.Array, part: jax.Array) -> jax.Array:
    """This device's part of an array, where `part`, of another array, is divided among devices."""
    axis = _divided_axis(whole, part)
    if axis is None:
        return whole
    size = part.shape[axis]
    return lax.dynamic_slice_in_dim(whole, lax.axis_index(AXIS) * size, size, axis)


def _whole_like(part: jax.Array, whole: jax.Array) -> jax.Array:
    """The array of which every device has a part; the inverse of `_part_like`."""
    axis = _divided_axis(whole, part)
    return part if axis is None else lax.all_gather(part, AXIS, axis=axis, tiled=True)


def _divided_axis(whole: jax.Array, part: jax.Array) -> int | None:
    sizes = zip(whole.shape, part.shape, strict=True)
    return next((axis for axis, (size, rest) in enumerate(sizes) if size != rest), None)


def may_be_divided(state: TrainState) -> TrainState:
    """Which arrays of a state may be divided among devices, as booleans.

    Adam's moments and the moving average: a step changes each of their numbers alone, from the
    gradient's and the parameter's in the same place.
    """
    nothing, everything = (
        jax.tree.map(lambda _, answer=answer: answer, state) for answer in (False, True)
    )
    return nothing._replace(
        generator=everything.generator._replace(params=nothing.generator.params),
        discriminator=everything.discriminator._replace(params=nothing.discriminator.params),
    )


def make_train_step(config: ConfigDict, *, r1: bool) -> Step:
    """train_step(state, batch, key) -> (state, metrics) for the examples of one device.

    key: of the run's seed, the same in every step. r1: whether this program computes the R1
    penalty; two programs without a branch are faster than one with it.
    """
    objective = make_objective(config)
    step_for_draws = partial(
        update,
        objective,
        make_optimizers(config),
        config.optimizer.ema_decay,
        config.train.microbatches,
        r1,
    )

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        def keys(purpose: Purpose) -> jax.Array:
            return randomness.example_keys(key, state.step, purpose, batch["index"])

        x_0 = to_float_images(batch["image"])
        if config.data.flip:
            x_0 = randomness.flip_examples(keys(Purpose.FLIP), x_0)
        draws = [
            objective.draw(keys(purpose), x_0.shape[1:])
            for purpose in (Purpose.DISCRIMINATOR_STEP, Purpose.GENERATOR_STEP)
        ]
        return step_for_draws(state, x_0, batch["label"], *draws)

    return train_step


def has_r1(config: ConfigDict, step: int) -> bool:
    """Whether the step after `step` finished ones computes the R1 penalty; the first one does."""
    return config.objective.r1_gamma > 0 and step % config.objective.r1_interval == 0
