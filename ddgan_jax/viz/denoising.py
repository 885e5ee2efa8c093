"""Draw from the denoising distribution: the images that one noisy image may come from.

A real image x_0 and one draw of noise eps give x_k = signal_k x_0 + noise_k eps for every k. Given
this x_k, draws that differ in z alone predict different x_0, and from these the posterior draws
different x_{k-1}. With growing k less of x_0 is left to know, and the predictions spread; those of
a generator that ignores z are all equal.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from ddgan_jax import build, images, pixels, randomness, sampling
from ddgan_jax.inference import weights
from ddgan_jax.inference.model import Model
from ddgan_jax.viz import distances, words
from ddgan_jax.viz.tiles import Block, Picture

# Standard deviation, of values in [-1, 1], that the map shows as white.
WHITEST = 0.25


class Denoising(NamedTuple):
    """One noisy image x_k for each k = 1 .. T, and K draws of a step from it.

    All are float32 and lie about [-1, 1].
    """

    # (T, H, W, C).
    x_k: np.ndarray
    # Predictions (T, K, H, W, C); None with objective.prediction = "x_t".
    x_0: np.ndarray | None
    # Draws of x_{k-1}, (T, K, H, W, C).
    x_km1: np.ndarray

    @property
    def outputs(self) -> np.ndarray:
        """Return the generator's outputs (T, K, H, W, C): x_0, or x_{k-1} if it predicts that."""
        return self.x_km1 if self.x_0 is None else self.x_0


@randomness.reproducible()
def denoise_once(
    model: Model,
    image: UInt8[np.ndarray, "h w c"],
    seeds: Sequence[int],
    label: int = 0,
    *,
    same_posterior: bool = False,
) -> Denoising:
    """Return one denoising step from each x_k of an image, with the z of every seed.

    image: x_0. seeds: eps is the noise of the first one. label: the class of the image, for models
    with classes. same_posterior: all posterior draws have the noise of the first seed, so that
    x_{k-1} varies with z alone. Each draw equals that of `Model.draw` in this step with this seed.
    """
    config = model.config
    sampler = build.sampler(config)
    # Noise is that of the sampler itself, so that each draw equals one of `ddgan sample`.
    noise = sampler.noise(jnp.asarray(seeds, jnp.uint32))
    posterior = noise.posterior
    if same_posterior:
        posterior = jnp.broadcast_to(posterior[:, :1], posterior.shape)
    params = jax.device_put(weights.cast(model.params, "float32"))
    labels = jnp.full(len(seeds), label, jnp.int32)
    x_0 = sampler.space.encode(jnp.asarray(pixels.to_float(image)))
    step = jax.jit(sampler.step)
    steps = sampler.schedule.sampling_transitions()

    noisy, drawn = [], []
    # The noisiest step comes first in `steps`, and here k counts upwards.
    for i in reversed(range(sampler.schedule.num_timesteps)):
        now = jax.tree.map(lambda c, i=i: c[i], steps)
        x_k = sampling.diffused(now, x_0, noise.x_T[0])
        # The step takes coefficients for each image of a batch, and all draws have the same.
        each = jax.tree.map(lambda c: jnp.full(len(seeds), c), now)
        x = jnp.broadcast_to(x_k, (len(seeds), *x_k.shape))
        noisy.append(np.asarray(sampler.space.decode(x_k)))
        drawn.append(sampler.images(step(params, x, each, noise.z[i], posterior[i], labels)))
    arrived = jax.tree.map(lambda *parts: np.stack(parts), *drawn)
    return Denoising(np.stack(noisy), arrived.x_0, arrived.x_t)


def picture(
    image: UInt8[np.ndarray, "h w c"], drawn: Denoising
) -> UInt8[np.ndarray, "height width c"]:
    """Return a picture with a row for each k, from x_0 and x_k to the spread of the predictions.

    Between them lie the predictions and the draws of x_{k-1}. The spread is the standard deviation
    of each pixel, averaged over its channels: 0 is black, WHITEST or more is white in every figure,
    so that figures can be compared.
    """
    steps = len(drawn.x_k)
    clean = np.broadcast_to(image, (steps, 1, *image.shape))
    given = np.concatenate([clean, pixels.to_uint8(drawn.x_k)[:, None]], axis=1)
    blocks = [drawn.x_0, drawn.x_km1] if drawn.x_0 is not None else [drawn.x_km1]
    return images.side_by_side([given, *map(pixels.to_uint8, blocks), _spread(drawn)])


def figure(
    model: Model, image: UInt8[np.ndarray, "h w c"], drawn: Denoising, seeds: Sequence[int]
) -> Picture:
    """Return the figure of the same rows and columns. seeds: those of `denoise_once`."""
    of_seeds = [f"z of seed {seed}" for seed in seeds]
    noisy = [[image, x_k] for x_k in pixels.to_uint8(drawn.x_k)]
    mixed = [["", f"{signal:.2f} x₀ + {noise:.2f} ε"] for signal, noise in _factors(model)]
    lengths = [[f"mean L2 {distances.mean_pairwise(outputs):.3g}"] for outputs in drawn.outputs]
    blocks = [Block("given", noisy, ["x₀: real", "xₖ: noisy"], mixed)]
    what, origin = "xₖ₋₁", "xₖ"
    if drawn.x_0 is not None:
        blocks.append(Block("x₀ predicted from xₖ", pixels.to_uint8(drawn.x_0), of_seeds))
        what, origin = "x₀", "these"
    blocks.append(Block(f"xₖ₋₁ drawn from {origin}", pixels.to_uint8(drawn.x_km1), of_seeds))
    blocks.append(Block("spread", _spread(drawn), [f"of the {what}"], lengths))
    return Picture(
        "Several images from one noisy image",
        f"{words.of_model(model)} A row for each step k; a column for each latent z.",
        blocks,
        [f"k = {k}" for k in range(1, len(drawn.x_k) + 1)],
        f"Spread: the standard deviation of each pixel among the draws, of values from -1 to 1, "
        f"from 0 (black) to {WHITEST} or more (white). Below it the mean L2 distance between two "
        "draws, 0 for a model that has collapsed.",
    )


def _spread(drawn: Denoising) -> UInt8[np.ndarray, "steps 1 h w c"]:
    of_pixels = drawn.outputs.std(1).mean(-1, keepdims=True)[:, None]
    channels = drawn.outputs.shape[-1]
    # to_uint8 maps [-1, 1] to black and white, and 0 to WHITEST is stretched over that.
    gray = pixels.to_uint8(2 * of_pixels / WHITEST - 1)
    return np.broadcast_to(gray, (*gray.shape[:-1], channels))


def _factors(model: Model) -> list[tuple[float, float]]:
    """Return the factors of x_0 and of the noise in x_k, for k = 1 .. T."""
    steps = build.schedule(model.config, model.config.sampling.num_steps).sampling_transitions()
    # The arrays begin with the noisiest step, which k counts last.
    pairs = zip(steps.next_signal, steps.next_noise, strict=True)
    return [(float(signal), float(noise)) for signal, noise in pairs][::-1]


def table(model: Model, drawn: Denoising) -> str:
    """Return a line for each k: the factors of x_0 and noise in x_k, and the outputs' distance."""
    what = "predictions of x_0" if drawn.x_0 is not None else "draws of x_{k-1}"
    lines = [f"k  signal  noise  mean L2 between the {drawn.outputs.shape[1]} {what}"]
    for k, ((signal, noise), outputs) in enumerate(
        zip(_factors(model), drawn.outputs, strict=True), 1
    ):
        lines.append(f"{k}  {signal:6.3f}  {noise:5.3f}  {distances.mean_pairwise(outputs):.4g}")
    return "\n".join(lines)
