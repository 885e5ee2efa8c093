"""Read the user's images for scoring: a folder or zip of image files, .npy or .npz."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ddgan_jax.data import array_files, image_checks, image_folders
from ddgan_jax.data.array_files import ImageArrays
from ddgan_jax.data.decode import decode
from ddgan_jax.data.image_folders import ImageFolder
from ddgan_jax.errors import UserError
from ddgan_jax.files import paths
from ddgan_jax.pixels import to_uint8

# Images that are decoded at a time, so that memory does not grow with the size of the set.
CHUNK = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """Images of one size.

    shape: Height, width and channels. read: Yields all images in uint8 chunks (n, h, w, c).
    """

    count: int
    shape: tuple[int, int, int]
    read: Callable[[], Iterator[np.ndarray]]


def open_images(path: str | os.PathLike, what: str = "images") -> Given:
    """Return the images at `path`. what: how messages call the path.

    A folder or a .zip is read as `image_folders` does, all images whatever their class; gray files
    are gray only if all are. Other files are arrays, see `array_files.open_images`: uint8, or float
    in [-1, 1]. Raises UserError, in one line, for whatever cannot be scored.
    """
    place = Path(paths.user_path(path, what))
    # Of a bucket only files of arrays are read: a folder of images must be local or mounted.
    if paths.is_bucket(path) or (not _is_folder(place) and place.suffix.lower() != ".zip"):
        return _array(array_files.open_images(path, what))
    return _folder(image_folders.open_folder(path, what))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    # Its reader will say in one line what is wrong with the path.
    except OSError:
        return False


def _folder(folder: ImageFolder) -> Given:
    # The heads of all files are read first: a file of another size shows before the scoring begins.
    shapes = [form.shape for form in image_checks.check_all(folder)]
    height, width, _ = shapes[0]
    other = next((i for i, shape in enumerate(shapes) if shape[:2] != (height, width)), None)
    if other is not None:
        first, second = (
            f"{folder.names[i]} has {shapes[i][1]} x {shapes[i][0]} pixels" for i in (0, other)
        )
        raise UserError(f"the images below {folder.root} have several sizes: {first}, {second}")
    # A folder may mix gray and colour, of which colour is the common form.
    channels = max(shape[-1] for shape in shapes)

    def read() -> Iterator[np.ndarray]:
        for start in range(0, len(folder.names), CHUNK):
            names = folder.names[start : start + CHUNK]
            yield np.stack([decode(folder.read(n), channels, folder.source(n)) for n in names])

    return Given(len(folder.names), (height, width, channels), read)


def _array(found: ImageArrays) -> Given:
    pixels = found.pixels
    if pixels.dtype != np.uint8:
        _check_floats(found)

    def read() -> Iterator[np.ndarray]:
        for chunk in array_files.chunks(pixels):
            yield chunk if chunk.dtype == np.uint8 else to_uint8(chunk)

    return Given(len(pixels), pixels.shape[1:], read)


def _check_floats(found: ImageArrays) -> None:
    low, high = array_files.value_range(found)
    if low < -1 or high > 1:
        raise UserError(
            f"{found.name} holds floats from {low:.4g} to {high:.4g}: they must lie in [-1, 1], or "
            "be uint8"
        )
    # Images in [0, 1] lie in [-1, 1] too, and would be scored as pale ones.
    if low >= 0:
        raise UserError(
            f"{found.name} holds floats from {low:.4g} to {high:.4g}: if they mean [0, 1], give "
            "2 x - 1, or uint8"
        )
