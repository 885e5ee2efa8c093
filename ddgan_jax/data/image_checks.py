"""Decode all images of a folder or a table once, before anything is made of them."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sized
from concurrent import futures
from typing import NamedTuple, TypeVar

from ddgan_jax.data import decode
from ddgan_jax.data.image_folders import ImageFolder
from ddgan_jax.errors import UserError, reason
from ddgan_jax.progress import Display

T = TypeVar("T")

# Images that are decoded at a time.
CHUNK = 1024
THREADS = 4
# Files that a message names.
MOST_NAMED = 10


class Form(NamedTuple):
    """The form of an image file: (height, width, 1 for gray or 3), and the SHA-256 of its bytes."""

    shape: tuple[int, int, int]
    sha256: bytes


def check_all(folder: ImageFolder) -> list[Form]:
    """Decode all images and return the form of each. Raises UserError as `forms_of` does."""
    return forms_of(folder.names, lambda name: (folder.read(name), folder.source(name)))


def forms_of(
    images: Iterable[T], read: Callable[[T], tuple[bytes, str]], at_a_time: int = CHUNK
) -> list[Form]:
    """Decode all images and return the form of each.

    images: what `read` takes; it returns the bytes of a file and its name in messages. at_a_time:
    the number of `images` that are taken at once. Raises one UserError that names images that
    cannot be decoded, the first ten and their number.
    """

    def look(image: T) -> Form | str:
        try:
            content, source = read(image)
            shape = decode.decode(content, None, source).shape
            return Form(shape, hashlib.sha256(content).digest())
        except UserError as error:
            return reason(error)

    # In chunks, since a pool takes all tasks at once and a set may have millions of images.
    forms, broken, left = [], [], iter(images)
    total = len(images) if isinstance(images, Sized) else 0
    display = Display(total, title="checking", unit="images")
    with display, futures.ThreadPoolExecutor(THREADS) as threads:
        while chunk := list(itertools.islice(left, at_a_time)):
            for form in threads.map(look, chunk):
                (broken if isinstance(form, str) else forms).append(form)
            display.step(len(broken) + len(forms))
    if broken:
        named = "; ".join(broken[:MOST_NAMED])
        more = f"; and {len(broken) - MOST_NAMED:,} more" if len(broken) > MOST_NAMED else ""
        raise UserError(
            f"{len(broken):,} of {len(broken) + len(forms):,} images cannot be used: {named}{more}"
        )
    return forms
