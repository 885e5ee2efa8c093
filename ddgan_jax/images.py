"""Make pictures for people: many images in one, points as a scatter plot, PNG files."""

import io
import math
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, PngImagePlugin

from ddgan_jax.errors import UserError
from ddgan_jax.files import ours
from ddgan_jax.files.atomic import write_atomically

# Pixels between the images of a grid.
GAP = 2
WHITE = 255
# Pixels of a grid's longer side from which it need not be enlarged.
GOOD_SIZE = 512


def grid(
    images: UInt8[np.ndarray, "n h w c"], columns: int | None = None, scale: int | None = None
) -> UInt8[np.ndarray, "height width c"]:
    """Return the images in one, row by row, with white gaps between them.

    columns: without it the grid is as square as can be. scale: each pixel becomes scale x scale;
    without it the smallest that makes the longer side GOOD_SIZE pixels.
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = scale or math.ceil(GOOD_SIZE / max(rows * height, columns * width))
    height, width = height * scale, width * scale
    # Each cell has its gap to the right and below. The last row may have empty, white cells.
    cells = np.full((rows * columns, height + GAP, width + GAP, channels), WHITE, np.uint8)
    cells[:count, :height, :width] = images.repeat(scale, axis=1).repeat(scale, axis=2)
    cells = cells.reshape(rows, columns, *cells.shape[1:]).transpose(0, 2, 1, 3, 4)
    joined = cells.reshape(rows * (height + GAP), columns * (width + GAP), channels)
    # The picture ends at the last image, without a gap.
    return joined[:-GAP, :-GAP]


def side_by_side(
    blocks: Sequence[UInt8[np.ndarray, "rows _ h w c"]],
) -> UInt8[np.ndarray, "height width c"]:
    """Return blocks of images, of equally many rows, as one image with wider gaps between them."""
    rows, _, height, width, _ = blocks[0].shape
    columns = sum(block.shape[1] for block in blocks)
    scale = math.ceil(GOOD_SIZE / max(rows * height, columns * width))
    grids = [grid(b.reshape(-1, *b.shape[2:]), b.shape[1], scale) for b in blocks]
    bar = np.full((len(grids[0]), 4 * GAP, grids[0].shape[-1]), WHITE, np.uint8)
    return np.concatenate([part for g in grids for part in (bar, g)][1:], axis=1)


def write_png(path: str | os.PathLike, image: UInt8[np.ndarray, "h w c"]) -> None:
    """Write an image, gray (c = 1) or RGB (c = 3), in place of the file at `path`.

    A kill leaves no half image. Raises UserError if it cannot be written.
    """
    content = io.BytesIO()
    about = PngImagePlugin.PngInfo()
    # A command may replace a file that says so.
    about.add_text("Software", ours.PROGRAM)
    # Pillow knows gray images only without an axis of channels.
    gray = image.shape[-1] == 1
    Image.fromarray(image[..., 0] if gray else image).save(content, format="PNG", pnginfo=about)
    write_atomically(path, content.getvalue())


def scatter(
    points: Float[np.ndarray, "n ... 2"], size: int = GOOD_SIZE
) -> UInt8[np.ndarray, "size size 1"]:
    """Return points as a gray picture, darker where more of them are.

    The axes reach from the smallest to the largest coordinate, the first one to the right, the
    second one upwards. Raises UserError for a coordinate that is NaN or infinite.
    """
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    if not np.isfinite(xy).all():
        raise UserError("a coordinate is NaN or infinite, and has no place in a picture")
    # One range for both axes keeps the shape of the cloud.
    low, high = xy.min(), xy.max()
    cells = np.clip((xy - low) / max(high - low, 1e-9) * (size - 1), 0, size - 1).astype(int)
    counts = np.zeros((size, size))
    # Rows of a picture count downwards. `add.at` counts repeated cells, which `+=` would count
    # once.
    np.add.at(counts, (size - 1 - cells[:, 1], cells[:, 0]), 1)
    # A single point is still gray enough to be seen beside a crowded cell.
    ink = np.where(counts > 0, 0.35 + 0.65 * counts / max(counts.max(), 1), 0)
    return (WHITE * (1 - ink)).astype(np.uint8)[..., None]


def picture(samples: np.ndarray, columns: int | None = None) -> UInt8[np.ndarray, "height width c"]:
    """Return one picture of all samples: a grid of uint8 images, a scatter plot of float points."""
    return grid(samples, columns) if samples.dtype == np.uint8 else scatter(samples)
