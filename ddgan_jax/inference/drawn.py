"""Give drawn images the ways in which a person looks at them: PIL images, a grid, a PNG file.

    model.sample(16).images()           a list of PIL images
    model.sample(16).save("grid.png")   all of them in one picture

In a notebook a cell that ends with `model.sample(16)` shows the grid.
"""

import os
from typing import Any

import numpy as np
from PIL import Image

from ddgan_jax import images
from ddgan_jax.errors import UserError
from ddgan_jax.files import locks
from ddgan_jax.inference import arguments, formats

# Images that a notebook shows of an array. Ten thousand would be a picture of many megabytes.
MOST_IN_A_NOTEBOOK = 100


class Images(np.ndarray):
    """Drawn images, uint8 (N, H, W, C), or points of a toy set, float32 (N, 1, 1, 2).

    It is a NumPy array in every respect. A part of it has this type, too, and the methods below
    work on parts that still are images, such as a single one (H, W, C). What is computed from it is
    a plain array or number, and what is computed into it, as by `+=`, stays what it is.
    """

    def __array_wrap__(
        self, array: np.ndarray, context: Any = None, return_scalar: bool = False
    ) -> Any:
        """Return the result of a NumPy function as it would be for a plain array."""
        # NumPy wraps the array that a function has written into as well, and it stays itself.
        if array is self:
            return self
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def images(self) -> list[Image.Image]:
        """Return the images as PIL images, gray or RGB. Raises UserError for points."""
        batch = self._batch()
        if batch.dtype != np.uint8:
            raise UserError("these are points of a toy set: `save` makes one picture of them")
        return [_to_pil(image) for image in batch]

    def save(
        self, path: str | os.PathLike, *, columns: int | None = None, force: bool = False
    ) -> None:
        """Write all images as one grid, or all points as a scatter plot, into a .png file.

        columns: of the grid; without it the grid is as square as can be. force: replace a file that
        this package did not write. Raises UserError if it cannot be written.
        """
        batch = self._batch()
        if columns is not None:
            columns = arguments.integer("columns", columns, len(batch), least=1)
        written, force = arguments.path("path", path), arguments.switch("force", force)
        with locks.output_file(written, ".png", what="path", force=force) as out:
            images.write_png(out, images.picture(batch, columns))

    def _repr_png_(self) -> bytes | None:
        """Return the grid of the first images as a PNG file; a notebook asks for it."""
        try:
            batch = self._batch()
            shown = batch[:MOST_IN_A_NOTEBOOK] if batch.dtype == np.uint8 else batch
            return formats.to_png(images.picture(shown))
        except UserError:
            # The notebook falls back to the numbers.
            return None

    def _batch(self) -> np.ndarray:
        """Return the images (N, H, W, C) or points, a single one as N = 1, as a plain array."""
        array = np.asarray(self)
        batch = array if array.ndim == 4 else array[None]
        are_images = array.dtype == np.uint8 and batch.ndim == 4 and batch.shape[3] in (1, 3)
        are_points = array.dtype == np.float32 and batch.shape[1:] == (1, 1, 2)
        if not (are_images or are_points) or not array.size:
            raise UserError(f"an array of {self.dtype} {self.shape} holds no images")
        return batch


def _to_pil(image: np.ndarray) -> Image.Image:
    # Pillow knows gray images only without an axis of channels.
    pixels = np.asarray(image)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
