"""Make one training step, a pure function of (state, batch, key), on one device of many.

    x_0, draws_D, draws_G      the batch, flipped at random, in the space that is diffused, and
                               fresh randomness for each update
    theta_D <- Adam(theta_D, grad L_D(theta_D; theta_G, draws_D))        discriminator_step
    theta_G <- Adam(theta_G, grad L_G(theta_G; theta_D, draws_G))        generator_step
    theta_EMA <- d theta_EMA + (1 - d) theta_G                           moving average

The generator is updated against the updated discriminator on the same images. Devices meet only in
the mean of gradients and metrics, and, where each keeps a shard of the optimisers' state, in
gathering the new parameters.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ddgan_jax import distributed, haar, pixels, randomness
from ddgan_jax.methods.objective import Draws, Objective
from ddgan_jax.randomness import Purpose
from ddgan_jax.state import (
    AnyArray,
    Batch,
    DiscriminatorState,
    GeneratorState,
    Images,
    Labels,
    Metrics,
    Params,
    PyTree,
    TrainState,
)


class Optimizers(NamedTuple):
    """The gradient transformations of both networks."""

    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
    """(state, batch, key) -> (state, metrics) for the examples of one device.

    flip: whether images are mirrored at random. microbatches: parts of the batch whose gradients
    are added up, see `mean_gradient`. r1: whether this program computes the R1 penalty; two
    programs without a branch are faster than one with it. space: the one that is diffused.
    """

    objective: Objective
    optimizers: Optimizers
    ema_decay: float
    flip: bool
    microbatches: int
    r1: bool
    space: haar.Space = haar.Pixels()

    def __call__(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Return the state after one more step, and its metrics. key: of the run's seed.

        The key is the same in every step. Must run under a mapping over `distributed.AXIS`. Metrics
        are scalars, equal on all devices.
        """
        x_0, labels, d_draws, g_draws = self.draw(state.step, batch, key)
        discriminator, d_metrics = self.discriminator_step(state, x_0, labels, d_draws)
        # The generator's update sees the discriminator that has just been updated.
        state = state._replace(discriminator=discriminator)
        generator, g_metrics = self.generator_step(state, x_0, labels, g_draws)
        return TrainState(state.step + 1, generator, discriminator), d_metrics | g_metrics

    def draw(
        self, step: AnyArray, batch: Batch, key: jax.Array
    ) -> tuple[Images, Labels, Draws, Draws]:
        """Return x_0, about [-1, 1], the labels, and the draws of both updates.

        They follow from the seed, the step and the examples' positions in the global batch.
        """

        def keys(purpose: Purpose) -> jax.Array:
            return randomness.example_keys(key, step, purpose, batch["index"])

        x_0 = to_float_images(batch["image"])
        if self.flip:
            x_0 = randomness.flip_examples(keys(Purpose.FLIP), x_0)
        x_0 = self.space.encode(x_0)
        d_draws, g_draws = (
            self.objective.draw(keys(purpose), x_0.shape[1:])
            for purpose in (Purpose.DISCRIMINATOR_STEP, Purpose.GENERATOR_STEP)
        )
        return x_0, batch["label"], d_draws, g_draws

    def discriminator_step(
        self, state: TrainState, x_0: Images, labels: Labels, draws: Draws
    ) -> tuple[DiscriminatorState, Metrics]:
        """Return the discriminator after one update against the generator of `state`."""

        def loss(params: Params, *examples: PyTree) -> tuple[jax.Array, Metrics]:
            return self.objective.discriminator_loss(
                params, state.generator.params, *examples, r1=self.r1
            )

        gradients, metrics = mean_gradient(
            loss, state.discriminator.params, (x_0, labels, draws), self.microbatches
        )
        params, opt_state, norm = _adam(
            self.optimizers.discriminator, gradients, state.discriminator
        )
        # The norm is that of the mean gradient, and equal on all devices already.
        metrics = distributed.mean(metrics) | {"d_gradient_norm": norm}
        return DiscriminatorState(params, opt_state), metrics

    def generator_step(
        self, state: TrainState, x_0: Images, labels: Labels, draws: Draws
    ) -> tuple[GeneratorState, Metrics]:
        """Return the generator and its average after one update against the discriminator."""

        def loss(params: Params, *examples: PyTree) -> tuple[jax.Array, Metrics]:
            return self.objective.generator_loss(params, state.discriminator.params, *examples)

        gradients, metrics = mean_gradient(
            loss, state.generator.params, (x_0, labels, draws), self.microbatches
        )
        params, opt_state, norm = _adam(self.optimizers.generator, gradients, state.generator)
        # The average follows the parameters after this update.
        ema_params = _moving_average(state.generator.ema_params, params, self.ema_decay, state.step)
        metrics = distributed.mean(metrics) | {"g_gradient_norm": norm}
        return GeneratorState(params, ema_params, opt_state), metrics


def to_float_images(image: AnyArray) -> AnyArray:
    """Return uint8 images, [0, 255], as float32, [-1, 1]. Points of the toy sets stay as they are.

    On the device, where the transfer of uint8 costs a quarter.
    """
    return pixels.to_float(image) if image.dtype == jnp.uint8 else image


def mean_gradient(
    loss: Callable[..., tuple[jax.Array, Metrics]],
    params: Params,
    examples: tuple[PyTree, ...],
    microbatches: int,
) -> tuple[Params, Metrics]:
    """Return the gradient of loss(params, *examples) in params, and its metrics: means over parts.

    examples: trees of arrays with the B examples of this device in front, B divisible by
    `microbatches`. Equal to the gradient of the whole up to rounding, for a loss that averages over
    examples; a minibatch standard deviation of "spread" groups is not of that kind.
    """
    gradient = jax.grad(loss, has_aux=True)
    if microbatches == 1:
        return gradient(params, *examples)

    def add(total: PyTree, part: tuple[PyTree, ...]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *part)), None

    # The parts are consecutive examples, so that groups of neighbours stay together; those of
    # optax.microbatching are every n-th example. One after the other, so that only the activations
    # of one part exist at a time.
    parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), examples)
    # A scan needs a sum to begin with, and tracing one part finds its shapes.
    result = jax.eval_shape(gradient, params, *jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), result)
    total, _ = lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / microbatches, total)


def _adam(
    optimizer: optax.GradientTransformation,
    gradients: Params,
    network: GeneratorState | DiscriminatorState,
) -> tuple[Params, PyTree, jax.Array]:
    """Return new parameters and optimiser state, and the norm of the gradient over all devices.

    Where the moments are sharded, a device updates its shard of the parameters alone.
    """
    # Devices meet here. Before this line each has the gradient of its own examples.
    gradients = distributed.mean(gradients)
    # Adam's moments have the shapes of the shards that this device keeps, whole ones otherwise.
    moments = optax.tree.get(network.opt_state, "mu", network.params)
    shards, gradient_shards = (
        distributed.shard_like(tree, moments) for tree in (network.params, gradients)
    )
    updates, opt_state = optimizer.update(gradient_shards, network.opt_state, shards)
    # The next forward pass needs whole parameters on every device.
    params = distributed.gather_like(optax.apply_updates(shards, updates), network.params)
    return params, opt_state, optax.tree.norm(gradients)


def _moving_average(ema: Params, params: Params, decay: float, step: jax.Array) -> Params:
    # The average starts from the parameters after the first update, not from the initial ones.
    d = jnp.where(step == 0, 0.0, decay)
    shards = distributed.shard_like(params, ema)
    # Not optax.incremental_update, whose results differ in their last bits: runs of an older
    # version resume with the bits that they would have had.
    return jax.tree.map(lambda e, p: (d * e + (1 - d) * p).astype(p.dtype), ema, shards)


def initial_state(
    generator_params: Params, discriminator_params: Params, optimizers: Optimizers
) -> TrainState:
    """Return the state at step 0, whose moving average is a copy of the parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=GeneratorState(
            params=generator_params,
            # A copy, because steps donate the state, and no buffer can be donated twice.
            ema_params=jax.tree.map(jnp.copy, generator_params),
            opt_state=optimizers.generator.init(generator_params),
        ),
        discriminator=DiscriminatorState(
            params=discriminator_params,
            opt_state=optimizers.discriminator.init(discriminator_params),
        ),
    )


def cosine_staircase(
    initial: float, final: float, decay_steps: int, interval: int
) -> optax.Schedule:
    """Return the learning rate as a function of the step.

    It goes from `initial` to `final` on a cosine over `decay_steps`, held constant for `interval`
    steps at a time (an epoch, as the published runs do), and stays there, however long a run goes
    on. With decay_steps = 0 it is constant.
    """
    if not decay_steps:
        return optax.constant_schedule(initial)

    def cosine(step: Any) -> jax.Array:
        tread = step // interval * interval
        fraction = 0.5 * (1 + jnp.cos(jnp.pi * tread / decay_steps))
        # Beyond decay_steps the cosine would rise again, so it ends there.
        rate = final + (initial - final) * fraction
        return jnp.where(step < decay_steps, rate, final)

    return cosine


def r1_is_due(step: int, gamma: float, interval: int) -> bool:
    """Return whether the step after `step` finished ones computes R1; the first one does."""
    return gamma > 0 and step % interval == 0
