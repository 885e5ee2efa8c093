"""Sample in a few denoising steps from noise to an image, one seed for each image.

    x_T ~ N(0, I);   for t = T-1 .. 0:  z ~ p(z),  x_t = denoise(G(x_{t+1}, t, z), x_{t+1})     (1)

A `Sampler` draws all randomness of its images first (`Sampler.noise`), then runs the chain. Each
image has a random key of its own, so that it depends on its seed, its class and the parameters
alone, and not on the images that are drawn beside it.

Everything else that a few steps can do is another noise in the same chain, or another place to
enter it. A `Variation` mixes the noise of two seeds, takes the latents z of a third, or enters at
a later step with a given image, diffused to the level of that step:

    x_k = sqrt(abar_k) x_0 + sqrt(1 - abar_k) eps                                               (2)

The chain runs in the space that the model diffuses, which need not be that of pixels: images are
encoded where they enter it, and decoded where they leave it.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, UInt32

from ddgan_jax import diffusion, haar, randomness
from ddgan_jax.errors import UserError
from ddgan_jax.randomness import Purpose
from ddgan_jax.schedules import Schedule, Transition
from ddgan_jax.state import AnyArray, Params

Seeds = UInt32[AnyArray, " n"]
Labels = Int[AnyArray, " n"]


class Noise(NamedTuple):
    """All randomness of N images in n denoising steps, the noisiest step first.

    (H, W, C) is the shape of an image in the space that is diffused.
    """

    x_T: AnyArray  # (N, H, W, C)
    z: AnyArray  # (n, N, ...)
    posterior: AnyArray  # (n, N, H, W, C)


class Trajectory(NamedTuple):
    """The results of each of the n steps, (n, N, H, W, C); x_t[-1] is the last one's."""

    x_t: AnyArray
    # The step's prediction; None where the generator predicts x_t.
    x_0: AnyArray | None


class Variation(NamedTuple):
    """Replacements for parts of the images' own noise, one entry for each image; None: no change.

    The weights mix: 0 is the image's own noise, 1 is that of its other seed.
    """

    other_seeds: AnyArray | None = None  # uint32 (N,)
    weights: AnyArray | None = None  # float32 (N,), 0 to 1
    # uint32 (N,). The generator gets their z in every step.
    latent_seeds: AnyArray | None = None
    # float32 (N, H, W, C) in [-1, 1], diffused to the level at which the chain begins.
    x_0: AnyArray | None = None


UNVARIED = Variation()


# Equality is identity, because JAX looks compiled programs up by the hash of a function, and the
# arrays of a schedule have none.
@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """A generator and the chain that it denoises: pure functions of parameters and seeds.

    generate(params, x_{t+1}, t, z, labels) is the network. image_shape: (H, W, C). space,
    diffused_shape: where the chain runs, and the shape of an image there. latent, latent_shape: the
    distribution of z, as in `randomness.latent`. prediction: the meaning of the network's output,
    as in `diffusion.denoise`.
    """

    generate: Callable[..., jax.Array]
    schedule: Schedule
    image_shape: tuple[int, ...]
    space: haar.Space
    diffused_shape: tuple[int, ...]
    latent: str
    latent_shape: tuple[int, ...]
    prediction: str

    def __call__(
        self,
        params: Params,
        seeds: Seeds,
        labels: Labels,
        variation: Variation = UNVARIED,
        start: int = 0,
    ) -> Trajectory:
        """Return the trajectories of the images, equation 1, from step `start` on, as images.

        labels: read by networks that are told the class. The chain begins with pure noise, or with
        variation.x_0, diffused to the level before step `start`. Raises UserError as `denoise`.
        """
        # The order of the variations matters: the latents of a third seed replace mixed ones, and
        # the noise that diffuses a given image may be mixed.
        noise = self.noise(seeds)
        if variation.other_seeds is not None and variation.weights is not None:
            other = self.noise(variation.other_seeds)
            noise = mix(noise, other, variation.weights, self.latent)
        if variation.latent_seeds is not None:
            noise = noise._replace(z=self.noise(variation.latent_seeds).z)
        if variation.x_0 is not None:
            self._check_start(start)
            first = jax.tree.map(lambda a: a[start], self.schedule.sampling_transitions())
            x_0 = self.space.encode(variation.x_0)
            noise = noise._replace(x_T=diffused(first, x_0, noise.x_T))
        return self.images(self.denoise(params, noise, labels, start))

    def images(self, drawn: Trajectory) -> Trajectory:
        """Return what a chain gave as images, about [-1, 1], whatever axes stand in front."""
        return jax.tree.map(self.space.decode, drawn)

    def noise(self, seeds: Seeds) -> Noise:
        """Return all random numbers that the images of the seeds need."""
        T = self.schedule.num_timesteps
        keys = randomness.refine(jax.vmap(randomness.run_key)(seeds), Purpose.SAMPLE)
        # All steps are drawn even if the chain begins at a later one, so that a step has the same
        # noise wherever the chain begins.
        first = randomness.refine(keys, T)
        # A step is known by the time t that it arrives at, and the chain counts down to t = 0.
        steps = jax.vmap(randomness.refine, (None, 0))(keys, jnp.arange(T - 1, -1, -1))
        return Noise(
            x_T=randomness.normal(first, Purpose.NOISE_TP1, self.diffused_shape),
            z=jax.vmap(lambda keys: randomness.latent(keys, self.latent, self.latent_shape))(steps),
            posterior=jax.vmap(
                lambda keys: randomness.normal(keys, Purpose.POSTERIOR, self.diffused_shape)
            )(steps),
        )

    def denoise(self, params: Params, noise: Noise, labels: Labels, start: int = 0) -> Trajectory:
        """Return the trajectories for given noise, from step `start` on, in the diffused space.

        noise.x_T is then the input of that step. The steps are a `lax.scan`: as fast as unrolled
        ones, and compiled in a third of the time. Raises UserError for a start that leaves no step.
        """
        self._check_start(start)

        def step(x: jax.Array, inputs: tuple) -> tuple[AnyArray, Trajectory]:
            transition, z, posterior = inputs
            # Networks are told a time for each example.
            transition = jax.tree.map(lambda c: jnp.full(len(x), c), transition)
            result = self.step(params, x, transition, z, posterior, labels)
            return result.x_t, result

        steps = (self.schedule.sampling_transitions(), noise.z, noise.posterior)
        return jax.lax.scan(step, noise.x_T, jax.tree.map(lambda a: a[start:], steps))[1]

    def step(
        self,
        params: Params,
        x: Float[AnyArray, "n *image c"],
        transition: Transition,
        z: Float[AnyArray, "n *latent l"],
        posterior: Float[AnyArray, "n *image c"],
        labels: Labels,
    ) -> Trajectory:
        """Return the result of one step from x_{t+1} = x, without an axis of steps.

        transition: its coefficients, (N,). posterior ~ N(0, I): the noise of the posterior draw.
        """
        output = self.generate(params, x, transition.next_time, z, labels)
        x_0, x_t = diffusion.denoise(self.prediction, transition, output, x, posterior)
        return Trajectory(x_t, x_0)

    def _check_start(self, start: int) -> None:
        if not 0 <= start < self.schedule.num_timesteps:
            raise UserError(
                f"`start={start}`: the steps are 0 to {self.schedule.num_timesteps - 1}"
            )


def diffused(
    step: Transition, x_0: Float[AnyArray, "*image c"], noise: Float[AnyArray, "*image c"]
) -> jax.Array:
    """Return x_0 at the noise level before a step, equation 2.

    step: its coefficients, scalars. noise ~ N(0, I).
    """
    return step.next_signal * x_0 + step.next_noise * noise


def mix(a: Noise, b: Noise, weights: Float[AnyArray, " n"], latent: str) -> Noise:
    """Return the noise between two, a at weight 0 and b at weight 1.

    Gaussian parts move on a great circle, so that what lies between has the length of noise: the
    mean of two independent draws is too short by sqrt(2). Latents that are not "normal" move on a
    line.
    """
    over_images = jax.vmap(_slerp)
    over_steps = jax.vmap(over_images, (0, 0, None))
    # A uniform latent must stay in [0, 1), which a straight line between two of them does.
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
    # Rounding can carry the cosine of two equal vectors past 1, where arccos is NaN.
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    sine = jnp.sin(angle)
    # The circle through two vectors on one line, a seed and itself, is that line.
    on_a_line = sine < 1e-3
    # The divisor is replaced as well: `where` computes both of its branches, and 0 / 0 is NaN.
    sine = jnp.where(on_a_line, 1, sine)
    of_a = jnp.where(on_a_line, 1 - weight, jnp.sin((1 - weight) * angle) / sine)
    of_b = jnp.where(on_a_line, weight, jnp.sin(weight * angle) / sine)
    return of_a * a + of_b * b
