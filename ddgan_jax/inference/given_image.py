"""Read an image that a person gives to a model from a file."""

import os

import numpy as np
from jaxtyping import UInt8

from ddgan_jax.data import decode
from ddgan_jax.data.image_folders import LARGEST_FILE
from ddgan_jax.files import foreign
from ddgan_jax.files.paths import user_path


def read(path: str | os.PathLike, size: int, channels: int) -> UInt8[np.ndarray, "size size c"]:
    """Return the image of a file, fitted to size and channels as images are for training.

    Raises UserError if the file is missing, is no image, or has fewer pixels.
    """
    path = user_path(path, "the image")
    content = foreign.read_bytes(path, "image", most=LARGEST_FILE)
    return decode.fit(decode.decode(content, channels, str(path)), size, str(path))
