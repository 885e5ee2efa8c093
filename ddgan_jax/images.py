"""Images for people: from floats to uint8, to a grid, to files."""

import io
import math
import os
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image

from ddgan_jax.errors import NotFiniteError, UserError
from ddgan_jax.files import foreign, paths
from ddgan_jax.files.atomic import write_atomically

GAP = 2  # pixels between the images of a grid
WHITE = 255
GOOD_SIZE = 512  # pixels of a grid's longer side from which it need not be enlarged
OTHER_FORMATS = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".npz", ".pt")


def are_points(shape: Sequence[int]) -> bool:
    """Return whether an example of this shape is a point of the toy sets: two coordinates."""
    return shape[-1] == 2


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [-1, 1] as uint8: (x + 1) * 127.5 to the nearest, halves to even, clipped.

    The inverse of u / 127.5 - 1 for each of the 256 values. Any shape. Raises NotFiniteError on NaN
    and infinity, which have no colour.
    """
    images = np.asarray(images, np.float32)
    if not np.isfinite(images).all():
        raise NotFiniteError("the images hold numbers that are not finite")
    return np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)


def read_image(path: str | os.PathLike, size: int, channels: int) -> np.ndarray:
    """Return the image of a file, uint8 (size, size, channels), fitted as for training.

    Raises UserError if the file is missing, is no image, or has fewer pixels.
    """
    # Here, since reading data sets comes with it.
    from ddgan_jax.data import decode
    from ddgan_jax.data.image_folders import LARGEST_FILE

    path = paths.user_path(path, "the image")
    content = foreign.read_bytes(path, "image", most=LARGEST_FILE)
    return decode.fit(decode.decode(content, channels, str(path)), size, str(path))


def grid(images: np.ndarray, columns: int | None = None, scale: int | None = None) -> np.ndarray:
    """uint8 images (N, H, W, C), row by row, as one image (H', W', C) with white gaps.

    columns: default as square as can be. scale: each pixel becomes scale x scale; default the
    smallest that makes the longer side GOOD_SIZE pixels.
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = scale or math.ceil(GOOD_SIZE / max(rows * height, columns * width))
    height, width = height * scale, width * scale
    cells = np.full((rows * columns, height + GAP, width + GAP, channels), WHITE, np.uint8)
    cells[:count, :height, :width] = images.repeat(scale, axis=1).repeat(scale, axis=2)
    cells = cells.reshape(rows, columns, *cells.shape[1:]).transpose(0, 2, 1, 3, 4)
    joined = cells.reshape(rows * (height + GAP), columns * (width + GAP), channels)
    return joined[:-GAP, :-GAP]


def side_by_side(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 blocks (rows, columns, H, W, C) of equally many rows as one image, in wider gaps."""
    rows, _, height, width, _ = blocks[0].shape
    columns = sum(block.shape[1] for block in blocks)
    scale = math.ceil(GOOD_SIZE / max(rows * height, columns * width))
    grids = [grid(b.reshape(-1, *b.shape[2:]), b.shape[1], scale) for b in blocks]
    bar = np.full((len(grids[0]), 4 * GAP, grids[0].shape[-1]), WHITE, np.uint8)
    return np.concatenate([part for g in grids for part in (bar, g)][1:], axis=1)


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes a uint8 image (H, W, C), C = 1 (gray) or 3 (RGB), in place of what was at `path`.

    A kill leaves no half image. Raises UserError if it cannot be written.
    """
    content = io.BytesIO()
    gray = image.shape[-1] == 1
    Image.fromarray(image[..., 0] if gray else image).save(content, format="PNG")
    write_atomically(path, content.getvalue())


def scatter(points: np.ndarray, size: int = GOOD_SIZE) -> np.ndarray:
    """Float points (N, .., 2) as a gray uint8 picture (size, size, 1), darker where more are.

    The axes reach from the smallest to the largest coordinate, the first one to the right, the
    second one upwards.
    """
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    low, high = xy.min(), xy.max()
    cells = np.clip((xy - low) / max(high - low, 1e-9) * (size - 1), 0, size - 1).astype(int)
    counts = np.zeros((size, size))
    np.add.at(counts, (size - 1 - cells[:, 1], cells[:, 0]), 1)
    ink = np.where(counts > 0, 0.35 + 0.65 * counts / max(counts.max(), 1), 0)
    return (WHITE * (1 - ink)).astype(np.uint8)[..., None]


def picture(samples: np.ndarray, columns: int | None = None) -> np.ndarray:
    """One uint8 picture of all samples: a grid of uint8 images, a scatter plot of float points."""
    return grid(samples, columns) if samples.dtype == np.uint8 else scatter(samples)


def write_images(
    out: str | os.PathLike, names: Sequence[str], images: np.ndarray, columns: int | None = None
) -> None:
    """Writes uint8 images or float points (N, H, W, C) in the form that the ending of `out` names.

    .png: one picture, of that many columns; .npy: the array; neither: a folder of PNGs, 000017.png
    for the name "000017". What has the same name is replaced, other files of the folder stay, so a
    folder can be written in parts. Raises UserError if `out` ends like a format that is not
    written, or cannot be written.
    """
    out = epath.Path(out)
    ending = out.suffix.lower()
    if ending in OTHER_FORMATS:
        raise UserError(f"cannot write {out}: name a .png, an .npy or a folder, not {ending}")
    if ending == ".png":
        write_png(out, picture(images, columns))
    elif ending == ".npy":
        content = io.BytesIO()
        np.save(content, images)
        write_atomically(out, content.getvalue())
    elif images.dtype != np.uint8:
        raise UserError("cannot write points as a folder of images: name a .png or an .npy")
    else:
        for name, image in zip(names, images, strict=True):
            write_png(out / f"{name}.png", image)
