"""Put the pictures of a run into its page: a few of them, evenly chosen and shrunk."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from etils import epath
from PIL import Image

from ddgan_jax.data import decode
from ddgan_jax.errors import UserError
from ddgan_jax.files import foreign

# Bytes of a picture file that is read.
LARGEST_PNG = 64 * 2**20

T = TypeVar("T")


class Grid(NamedTuple):
    """A picture for the page. source: its data URL, or empty after a `problem` in reading it."""

    step: int
    source: str = ""
    problem: str = ""

    @classmethod
    def read(cls, step: int, path: epath.Path, pixels: int) -> "Grid":
        """Return the picture of a file, its longer side no longer than that many pixels."""
        try:
            content = base64.b64encode(_shrunk(path, pixels)).decode()
        except UserError as error:
            # The page may go to other people, and where the folder lies is not their business.
            return cls(step, problem=str(error).replace(f"{path.parent}/", ""))
        return cls(step, source=f"data:image/png;base64,{content}")


def read_grids(files: Mapping[int, epath.Path], most: int, pixels: int) -> list[Grid]:
    """Return at most that many of the pictures, by step, evenly chosen."""
    return [Grid.read(step, path, pixels) for step, path in evenly(list(files.items()), most)]


def evenly(values: Sequence[T], most: int) -> list[T]:
    """Return at most so many of the values, evenly spaced, with the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _shrunk(path: epath.Path, pixels: int) -> bytes:
    """Return a picture as a PNG file, shrunk if its longer side is longer than that.

    Raises UserError for a file that is missing, damaged, no picture, or too large.
    """
    content = foreign.read_bytes(path, "picture", most=LARGEST_PNG)
    # The picture is decoded and written again, so that no foreign bytes get into the page.
    decoded = decode.decode(content, None, os.fspath(path))
    gray = decoded.shape[-1] == 1
    image = Image.fromarray(decoded[..., 0] if gray else decoded)
    image.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    png = io.BytesIO()
    image.save(png, format="PNG")
    return png.getvalue()
