"""Show the way from noise to an image: the input, prediction and result of every step."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from ddgan_jax import build, pixels
from ddgan_jax.inference.model import Model
from ddgan_jax.viz import words
from ddgan_jax.viz.tiles import Block, Picture


def columns(model: Model) -> list[str]:
    """Return the names of the columns of `rows`, from the noise to the image."""
    steps = range(model.num_steps, 0, -1)
    if model.config.objective.prediction == "x_t":
        return [*(f"x_{t}" for t in steps), "x_0"]
    names = [name for t in steps for name in (f"x_{t}", f"x_0 predicted from x_{t}")]
    return [*names[:-1], "x_0"]


def rows(
    model: Model, seeds: Sequence[int], labels: Sequence[int] | None = None
) -> UInt8[np.ndarray, "n columns h w c"]:
    """Return a row of images for each seed, the last of which is the image of the seed.

    labels: as in `Model.sample`.
    """
    drawn = model.trajectory(seeds, labels)
    # The trajectory has the results of steps, and not the noise that the first one begins with.
    sampler = build.sampler(model.config)
    noise = sampler.noise(jnp.asarray(seeds, jnp.uint32))
    x_T = np.asarray(sampler.space.decode(noise.x_T))
    given = np.concatenate([x_T[:, None], drawn.x_t[:, :-1]], axis=1)
    image = drawn.x_t[:, -1:]
    if drawn.x_0 is None:
        return pixels.to_uint8(np.concatenate([given, image], axis=1))
    # The last step's result is its prediction, so that the image stands there once.
    predicted = np.concatenate([drawn.x_0[:, :-1], image], axis=1)
    # Each input stands before its prediction: the two axes become one in that order.
    pairs = np.stack([given, predicted], axis=2)
    return pixels.to_uint8(pairs.reshape(len(pairs), -1, *pairs.shape[3:]))


def figure(
    model: Model,
    seeds: Sequence[int],
    labels: Sequence[int] | None,
    drawn: UInt8[np.ndarray, "n columns h w c"],
) -> Picture:
    """Return the figure of the rows that `rows` draws for the same arguments."""
    first, *between, last = map(words.subscripted, columns(model))
    return Picture(
        "From noise to image",
        f"{words.of_model(model)} A row for each seed.",
        [Block("", drawn, [f"{first}: noise", *between, f"{last}: the image"])],
        words.rows(seeds, labels),
        "Values are shown from -1 (black) to 1 (white); what lies beyond is cut off.",
    )
