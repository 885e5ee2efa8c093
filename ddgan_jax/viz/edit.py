"""A given picture, noised to step t and denoised again: the later t, the less of it is left."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from ddgan_jax.errors import UserError
from ddgan_jax.inference.model import Model

# Of the shorter side: 23 pixels of 256, as strokes are simulated in SDEdit (Meng et al. 2022).
BRUSH = 23 / 256


def edit(
    model: Model,
    picture: np.ndarray,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    *,
    from_step: int | None = None,
) -> tuple[np.ndarray, int]:
    """What the model makes of a picture, one result per seed: uint8 (N, H, W, C), and from which t.

    picture: uint8 (H, W, C). labels: as in `Model.sample`. from_step: t, the number of denoising
    steps that follow, 1 to T; None: T / 2. Raises UserError for any other.
    """
    steps = model.num_steps
    t = max(1, steps // 2) if from_step is None else from_step
    if not 1 <= t <= steps:
        raise UserError(f"`from_step={t}`: the model has the steps 1 to {steps}")
    given = np.broadcast_to(picture, (len(seeds), *picture.shape))
    return model.sample(seeds, labels, images=given, start=steps - t), t


def strokes(picture: np.ndarray, colours: int) -> np.ndarray:
    """The picture (H, W, 1 or 3), uint8, as if painted with a broad brush in a few flat colours.

    A median filter, and the k-means of its colours. Raises UserError for other than 2 to 256.
    """
    if not 2 <= colours <= 256:
        raise UserError(f"`strokes={colours}`: a painting has 2 to 256 colours")
    gray = picture.shape[-1] == 1
    painted = Image.fromarray(picture[..., 0] if gray else picture)
    reach = round(BRUSH * min(painted.size) / 2)
    flat = painted.filter(ImageFilter.MedianFilter(2 * reach + 1)).convert("RGB")
    flat = flat.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=10, dither=Image.Dither.NONE)
    return np.asarray(flat.convert(painted.mode)).reshape(picture.shape)
