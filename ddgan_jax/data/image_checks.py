"""Decode all images of a folder or a table once, before anything is made of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent import futures
from typing import NamedTuple, TypeVar

from ddgan_jax.data import decode
from ddgan_jax.data.image_folders import ImageFolder
from ddgan_jax.errors import UserError, reason
from ddgan_jax.progress import Display

T = TypeVar("T")

# Images that are decoded at a time.
CHUNK = 1024
# Bytes of image files that a chunk holds; the last one may exceed it.
CHUNK_BYTES = 2**28
THREADS = 4
# Files that a message names.
MOST_NAMED = 10


class Form(NamedTuple):
    """The form of an image file: (height, width, 1 for gray or 3), and the SHA-256 of its bytes."""

    shape: tuple[int, int, int]
    sha256: bytes


def check_all(folder: ImageFolder, names: Sequence[str] | None = None) -> list[Form]:
    """Decode images and return the form of each. Raises UserError as `forms_of` does.

    names: those to decode, None for all of the folder.
    """
    return forms_of(
        folder.names if names is None else names,
        lambda name: (folder.read(name), folder.source(name)),
    )


def forms_of(
    images: Iterable[T],
    read: Callable[[T], tuple[bytes, str]],
    size: Callable[[T], int] = lambda image: 0,
) -> list[Form]:
    """Decode all images and return the form of each.

    images: what `read` takes; it returns the bytes of a file and its name in messages. size: the
    bytes that one of `images` holds in memory. Raises one UserError that names images that cannot
    be decoded, the first ten and their number.
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
        while chunk := _chunk(left, size):
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


def _chunk(left: Iterator[T], size: Callable[[T], int]) -> list[T]:
    """Take the next images: `CHUNK` of them, or fewer that hold `CHUNK_BYTES`."""
    chunk, held = [], 0
    while len(chunk) < CHUNK and held < CHUNK_BYTES:
        try:
            chunk.append(next(left))
        except StopIteration:
            break
        held += size(chunk[-1])
    return chunk
