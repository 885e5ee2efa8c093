"""Keep chunks of images until they go into one file, each named after its positions.

    OUT.parts/0000000000-0000000064.npy    images 0 to 63
    OUT.parts/0000000064-0000000128.npy    images 64 to 127

Another program may have written files there. Names, sizes and forms are checked, and messages name
every file that is no part.
"""

import io
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from etils import epath

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files.arrays import ArrayFile, open_arrays
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.files.paths import entries


class Part(NamedTuple):
    """The images from position `first` to before `last`."""

    file: ArrayFile
    first: int
    last: int


def write_part(folder: epath.Path, first: int, images: np.ndarray) -> None:
    """Write images (n, ...). first: the position of the first of them."""
    content = io.BytesIO()
    np.save(content, images)
    write_atomically(folder / f"{first:010d}-{first + len(images):010d}.npy", content.getvalue())


def list_parts(folder: epath.Path) -> list[Part]:
    """Return the parts in the folder, which follow each other from position 0 on.

    Raises UserError if a part is missing between others, for a file that is no part, and for images
    of several forms.
    """
    parts: list[Part] = []
    for path in entries(folder, after=".npy"):
        # Names of ten digits sort like their numbers, so that each part must begin where the last
        # one ended.
        done = parts[-1].last if parts else 0
        name = re.fullmatch(r"(\d{10})-(\d{10})\.npy", path.name, re.ASCII)
        if not name:
            raise UserError(f"{shown(path, 300)} is no part of images: move it")
        first, last = int(name[1]), int(name[2])
        if first != done:
            raise UserError(
                f"{shown(folder, 300)} has lost a part before image {first}: move it and begin anew"
            )
        part = Part(_opened(path), first, last)
        # The name promises a number of images, which the header must hold.
        if len(part.file.forms[""].shape) < 2 or part.file.forms[""].shape[0] != last - first:
            _refuse(path, "is damaged")
        # Joined in one array, images of another form would be read as garbage.
        if parts and _form(part) != _form(parts[0]):
            _refuse(path, "holds other images than the parts before it")
        parts.append(part)
    return parts


def read_parts(folder: epath.Path) -> Iterator[np.ndarray]:
    """Yield the images of the parts, one part after the other. Raises UserError as `list_parts`."""
    for part in list_parts(folder):
        yield part.file.load("")


def _opened(path: epath.Path) -> ArrayFile:
    file = open_arrays(path)
    if "" not in file.forms:
        _refuse(path, "is no single array")
    return file


def _form(part: Part) -> tuple:
    form = part.file.forms[""]
    return form.dtype, form.shape[1:]


def _refuse(path: os.PathLike, why: str) -> None:
    raise UserError(f"{shown(path, 300)} {why}: move its folder and begin anew")
