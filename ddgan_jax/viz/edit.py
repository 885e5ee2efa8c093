"""Edit a given picture: noise it to step t and denoise it again; the larger t, the less is left."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from ddgan_jax.errors import UserError
from ddgan_jax.inference.model import Model
from ddgan_jax.viz import distances, words
from ddgan_jax.viz.tiles import Block, Picture

# Width of the median filter as a part of the shorter side: 23 pixels of 256, as SDEdit simulates
# strokes (Meng et al. 2022).
BRUSH = 23 / 256
# Results in a row of a figure.
COLUMNS = 8


def edit(
    model: Model,
    picture: UInt8[np.ndarray, "h w c"],
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    *,
    from_step: int | None = None,
) -> tuple[UInt8[np.ndarray, "n h w c"], int]:
    """Return the model's version of a picture for each seed, and the step t that it began from.

    labels: as in `Model.sample`. from_step: t, the number of denoising steps that follow, from 1 to
    T, by default T / 2. Raises UserError for another t.
    """
    steps = model.num_steps
    t = max(1, steps // 2) if from_step is None else from_step
    if not 1 <= t <= steps:
        raise UserError(f"`from_step={t}`: the model has the steps 1 to {steps}")
    # `start` counts steps from the noise, and t counts them from the image.
    given = np.broadcast_to(picture, (len(seeds), *picture.shape))
    return model.sample(seeds, labels, images=given, start=steps - t), t


def strokes(picture: UInt8[np.ndarray, "h w c"], colours: int) -> UInt8[np.ndarray, "h w c"]:
    """Return a gray or RGB picture as if painted with a broad brush in a few flat colours.

    It is a median filter, then the k-means of the colours. Raises UserError for other than 2 to 256
    colours.
    """
    if not 2 <= colours <= 256:
        raise UserError(f"`strokes={colours}`: a painting has 2 to 256 colours")
    gray = picture.shape[-1] == 1
    painted = Image.fromarray(picture[..., 0] if gray else picture)
    reach = round(BRUSH * min(painted.size) / 2)
    # Pillow's median filter takes odd widths alone.
    flat = painted.filter(ImageFilter.MedianFilter(2 * reach + 1)).convert("RGB")
    # Dithering would mix the flat colours again.
    flat = flat.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=10, dither=Image.Dither.NONE)
    return np.asarray(flat.convert(painted.mode)).reshape(picture.shape)


def figure(
    model: Model,
    given: UInt8[np.ndarray, "h w c"],
    results: UInt8[np.ndarray, "n h w c"],
    t: int,
    seeds: Sequence[int],
    labels: Sequence[int] | None,
) -> Picture:
    """Return the figure of a picture and its versions that `edit` draws from step t on."""
    names = words.rows(seeds, labels)
    lengths = distances.from_one(results, given)
    texts = [f"{name}\n{length:.2f}" for name, length in zip(names, lengths, strict=True)]
    starts = range(0, len(results), COLUMNS)
    return Picture(
        "A picture noised and denoised",
        words.of_model(model),
        [
            # The picture stands once, before the first row of its versions.
            Block("input", [[given], *([None] for _ in starts[1:])]),
            Block(
                words.subscripted(f"from x_{t} of {model.num_steps} steps on, one for each seed"),
                [results[start : start + COLUMNS] for start in starts],
                below=[texts[start : start + COLUMNS] for start in starts],
            ),
        ],
        notes="The number is the L2 distance from the input, over all pixels and channels, with "
        f"values from -1 to 1. The input was noised to step t = {t}: the larger t, the less is "
        "left of it.",
    )
