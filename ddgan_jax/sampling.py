"""Sampling: a few denoising steps from noise to an image, one seed per image.

    x_T ~ N(0, I);   for t = T-1 .. 0:  z ~ p(z),  x_t = denoise(G(x_{t+1}, t, z), x_{t+1})

The image of a seed depends on the seed, its class and the parameters alone: not on how many images
are drawn together, nor on the devices. Each has its own random key, and the compiled sampler always
sees the same number of images per device; a shorter request is filled up and cut.

Everything else that a few steps can do is another noise in the same chain, or another place to
enter it: a `Variation` mixes the noise of two seeds, takes the latents z of a third, or enters
at a later step with a given image, noised to that step's level.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import diffusion, distributed, images, models, randomness
from ddgan_jax.config import MOST_IMAGES
from ddgan_jax.data import mixture
from ddgan_jax.diffusion import Transition
from ddgan_jax.errors import UserError
from ddgan_jax.randomness import Purpose
from ddgan_jax.state import Params


class Noise(NamedTuple):
    """All randomness of N images in n denoising steps, the noisiest step first."""

    x_T: jax.Array  # (N, H, W, C)
    z: jax.Array  # (n, N, ...)
    posterior: jax.Array  # (n, N, H, W, C)


class Trajectory(NamedTuple):
    """What each of the n steps arrives at, (n, N, H, W, C); the images are x_t[-1]."""

    x_t: jax.Array
    x_0: jax.Array | None  # the step's prediction; None with objective.prediction = "x_t"


class Request(NamedTuple):
    """Which images to draw: a seed and a class (0 where there are none) for each."""

    seeds: Sequence[int]
    labels: Sequence[int]


class Variation(NamedTuple):
    """What of the images' noise is not that of their seeds; an entry for each image, or None."""

    other_seeds: np.ndarray | None = None  # uint32 (N,), with whose noise theirs is mixed
    weights: np.ndarray | None = None  # float32 (N,), 0: their own noise, 1: that of other_seeds
    latent_seeds: np.ndarray | None = None  # uint32 (N,), whose z the generator gets in every step
    x_0: np.ndarray | None = None  # float32 (N, H, W, C), [-1, 1]: the chain begins with these


UNVARIED = Variation()


def make_noise(config: ConfigDict) -> Callable[[jax.Array], Noise]:
    """noise(seeds) -> Noise. seeds: uint32 (N,). A pure function, as the following ones."""
    schedule = diffusion.make_schedule(config, config.sampling.num_steps)
    shape = (config.data.image_size, config.data.image_size, config.data.channels)
    latent = (config.generator.latent, models.latent_shape(config))
    countdown = jnp.arange(schedule.num_timesteps - 1, -1, -1)

    def noise(seeds: jax.Array) -> Noise:
        keys = randomness.refine(jax.vmap(randomness.run_key)(seeds), Purpose.SAMPLE)
        first = randomness.refine(keys, schedule.num_timesteps)
        of_steps = jax.vmap(randomness.refine, (None, 0))(keys, countdown)
        return Noise(
            x_T=randomness.normal(first, Purpose.NOISE_TP1, shape),
            z=jax.vmap(lambda keys: randomness.latent(keys, *latent))(of_steps),
            posterior=jax.vmap(lambda keys: randomness.normal(keys, Purpose.POSTERIOR, shape))(
                of_steps
            ),
        )

    return noise


def mix(a: Noise, b: Noise, weights: jax.Array, latent: str) -> Noise:
    """Between the noises: a at weight 0, b at 1. weights: float32 (N,); latent: generator.latent.

    Gaussian parts move on a great circle, so that what lies between has the length of noise: the
    mean of two independent draws is too short by sqrt(2). Other latents move on a line.
    """
    over_images = jax.vmap(_slerp)
    over_steps = jax.vmap(over_images, (0, 0, None))
    if latent == "normal":
        z = over_steps(a.z, b.z, weights)
    else:
        w = weights.reshape(1, -1, *(1,) * (a.z.ndim - 2))
        z = (1 - w) * a.z + w * b.z
    return Noise(
        x_T=over_images(a.x_T, b.x_T, weights),
        z=z,
        posterior=over_steps(a.posterior, b.posterior, weights),
    )


def _slerp(a: jax.Array, b: jax.Array, weight: jax.Array) -> jax.Array:
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    sine = jnp.sin(angle)
    # The circle through two vectors on one line, a seed and itself, is that line.
    on_a_line = sine < 1e-3
    sine = jnp.where(on_a_line, 1, sine)
    of_a = jnp.where(on_a_line, 1 - weight, jnp.sin((1 - weight) * angle) / sine)
    of_b = jnp.where(on_a_line, weight, jnp.sin(weight * angle) / sine)
    return of_a * a + of_b * b


def make_step(config: ConfigDict) -> Callable[..., Trajectory]:
    """step(params, x, transition, z, posterior, labels) -> Trajectory without an axis of steps.

    x: (N, H, W, C), where the step begins; posterior: likewise, the noise of its posterior draw.
    transition: its coefficients, (N,). z: (N, ...). labels: int32 (N,). A pure function.
    """
    generate = models.make_generate(config)

    def step(
        params: Params,
        x: jax.Array,
        transition: Transition,
        z: jax.Array,
        posterior: jax.Array,
        labels: jax.Array,
    ) -> Trajectory:
        output = generate(params, x, transition.next_time, z, labels)
        x_0, x_t = diffusion.denoise(config.objective.prediction, transition, output, x, posterior)
        return Trajectory(x_t, x_0)

    return step


def make_denoiser(
    config: ConfigDict, start: int = 0
) -> Callable[[Params, Noise, jax.Array], Trajectory]:
    """denoise(params, noise, labels) -> Trajectory of the steps from `start` on.

    start: how many of the first steps are left out; noise.x_T is then what they would have arrived
    at. labels: int32 (N,). The steps are a `lax.scan`: as fast as unrolled ones, compiled in a
    third of the time. Raises UserError for a number of sampling steps that the schedule does not
    have, and for a start that leaves none of them.
    """
    one_step = make_step(config)
    schedule = diffusion.make_schedule(config, config.sampling.num_steps)
    if not 0 <= start < schedule.num_timesteps:
        raise UserError(f"start={start}: the steps are 0 to {schedule.num_timesteps - 1}")

    def denoise(params: Params, noise: Noise, labels: jax.Array) -> Trajectory:
        def step(x: jax.Array, now: tuple) -> tuple[jax.Array, Trajectory]:
            coefficients, z, posterior = now
            coefficients = jax.tree.map(lambda c: jnp.full(len(x), c), coefficients)
            arrived = one_step(params, x, coefficients, z, posterior, labels)
            return arrived.x_t, arrived

        steps = (schedule.sampling_transitions(), noise.z, noise.posterior)
        return jax.lax.scan(step, noise.x_T, jax.tree.map(lambda a: a[start:], steps))[1]

    return denoise


def entrance(step: Transition, x_0: jax.Array, noise: jax.Array) -> jax.Array:
    """Where the forward process takes x_0 before the step, at the signal and noise of t + 1.

    step: its coefficients, scalars. x_0, noise ~ N(0, I): of one shape.
    """
    return step.next_signal * x_0 + step.next_noise * noise


def make_trajectory(config: ConfigDict, start: int = 0) -> Callable[..., Trajectory]:
    """trajectory(params, (seeds, labels), variation=UNVARIED) -> Trajectory from `start` on.

    seeds: uint32 (N,); labels: int32 (N,), read where data.num_classes > 0. Without variation.x_0
    the chain begins with pure noise; with it, where the forward process takes it before the step
    `start`. Raises UserError as `make_denoiser`.
    """
    draw_noise, denoise = make_noise(config), make_denoiser(config, start)
    schedule = diffusion.make_schedule(config, config.sampling.num_steps)

    def trajectory(
        params: Params, inputs: tuple[jax.Array, jax.Array], variation: Variation = UNVARIED
    ) -> Trajectory:
        seeds, labels = inputs
        noise = draw_noise(seeds)
        if variation.other_seeds is not None:
            other = draw_noise(variation.other_seeds)
            noise = mix(noise, other, variation.weights, config.generator.latent)
        if variation.latent_seeds is not None:
            noise = noise._replace(z=draw_noise(variation.latent_seeds).z)
        if variation.x_0 is not None:
            first = jax.tree.map(lambda a: a[start], schedule.sampling_transitions())
            noise = noise._replace(x_T=entrance(first, variation.x_0, noise.x_T))
        return denoise(params, noise, labels)

    return trajectory


def make_sampler(config: ConfigDict, start: int = 0) -> Callable[..., jax.Array]:
    """sample(params, (seeds, labels), variation=UNVARIED) -> images (N, H, W, C), float32.

    About [-1, 1]. Arguments and errors as those of `make_trajectory`.
    """
    trajectory = make_trajectory(config, start)
    return lambda *inputs: trajectory(*inputs).x_t[-1]


@randomness.reproducible()
def make_drawer(
    config: ConfigDict, devices: Sequence[jax.Device], *, start: int = 0, trajectory: bool = False
) -> Callable[..., Iterator[Any]]:
    """draw(params, request, variation=UNVARIED) -> images (n, H, W, C) in chunks, in order.

    uint8, or float32 points of the toy sets; with `trajectory` instead Trajectory of float32
    arrays (n, steps, H, W, C). Compiled once for sampling.chunk_size images per device. params:
    replicated over `devices`. Raises UserError as `make_denoiser`.
    """
    make = _by_image(make_trajectory(config, start)) if trajectory else make_sampler(config, start)
    sampler = distributed.map_examples(lambda params, inputs: make(params, *inputs), devices)
    # Around each call: around a `yield` the context would be that of whoever reads the images.
    sampler = randomness.reproducible()(sampler)
    size = config.sampling.chunk_size * len(devices)
    as_they_are = trajectory or config.data.name in mixture.SETS
    finish = np.asarray if as_they_are else images.to_uint8

    def fetch(drawn: Any, count: int) -> Any:
        return jax.tree.map(lambda a: finish(np.asarray(a)[:count]), drawn)

    def draw(
        params: Params, request: Request, variation: Variation = UNVARIED
    ) -> Iterator[np.ndarray]:
        seeds, labels = np.asarray(request.seeds, np.uint32), np.asarray(request.labels, np.int32)
        inputs = ((seeds, labels), variation)
        running = None
        for first in range(0, len(seeds), size):
            chunk = jax.tree.map(lambda a, i=first: a[i : i + size], inputs)
            filled = jax.tree.map(lambda a: np.resize(a, (size, *a.shape[1:])), chunk)
            # The devices begin with this chunk before anyone waits for the last one.
            previous, running = running, (sampler(params, filled), len(chunk[0][0]))
            if previous:
                yield fetch(*previous)
        if running:
            yield fetch(*running)

    return draw


def _by_image(trajectory: Callable[..., Trajectory]) -> Callable[..., Trajectory]:
    """The same with the images in front of the steps."""
    return lambda *inputs: jax.tree.map(lambda a: a.swapaxes(0, 1), trajectory(*inputs))


def concatenate(chunks: Iterable[Any]) -> Any:
    """What a drawer yields as one array (N, H, W, C), or one Trajectory."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def draw_all(draw: Callable[..., Iterator[Any]], params: Params, request: Request) -> np.ndarray:
    """All images of the request as one array (N, H, W, C)."""
    return concatenate(draw(params, request))


def each_class(
    config: ConfigDict, seeds: Sequence[int], labels: Sequence[int] | Literal["all"] = ()
) -> Request:
    """Every seed for every label, one label after the other.

    Without labels seed s has class s modulo the number of classes, or none if there are none.
    Raises UserError for a label that the model does not know, and for more than MOST_IMAGES.
    """
    classes = config.data.num_classes
    check_count(len(seeds) * (classes if labels == "all" else max(len(labels), 1)))
    seeds = np.asarray(seeds, np.uint32)
    if labels and not classes:
        raise UserError("--labels: this model was trained without classes")
    if not labels:
        return Request(seeds, (seeds % max(classes, 1)).astype(np.int32))
    labels = range(classes) if labels == "all" else labels
    for label in labels:
        if not 0 <= label < classes:
            raise UserError(f"--labels: {label} is not one of the classes 0 to {classes - 1}")
    return Request(np.tile(seeds, len(labels)), np.repeat(np.asarray(labels, np.int32), len(seeds)))


def check_count(count: int) -> None:
    """Refuse more images than one request can hold in memory."""
    if count > MOST_IMAGES:
        raise UserError(f"{count:,} images in one request; at most {MOST_IMAGES:,} are possible")


def names(request: Request) -> list[str]:
    """A file name for each image: its seed, behind its class if seeds are drawn for several."""
    if len(np.unique(request.seeds)) == len(request.seeds):
        return [f"{seed:06d}" for seed in request.seeds]
    return [f"class{c:04d}_{s:06d}" for s, c in zip(*request, strict=True)]


def overview(config: ConfigDict) -> Request:
    """The log.num_samples images of a run's grids: seeds 0, 1, .. of each of the first classes."""
    count, classes = config.log.num_samples, config.data.num_classes
    if not classes:
        return each_class(config, range(count))
    labels = range(min(classes, count))
    return each_class(config, range(count // len(labels)), labels)
