"""Decode one stored image, fit its size and convert its channels, with Pillow alone."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign

# Some of Pillow's other readers start helper programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
# The endings of these formats, in small letters.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp")
# The same formats, for messages.
KINDS = "PNG, JPEG, WebP, BMP or GIF image"
# Pillow's names of images by their number of channels.
MODES = {1: "L", 3: "RGB"}
GRAY = ("1", "L")
# The values of data.resize that fit small images, instead of refusing or skipping them.
FITTED = ("up", "pad")
# What they do, for messages.
WAYS_TO_FIT = "data.resize='up' enlarges them, 'pad' puts black around them"
# Of one image, 8192 x 8192: a small file may decode to far more.
MOST_PIXELS = 2**26


def decode(encoded: bytes, channels: int | None, source: str = "the image") -> np.ndarray:
    """Decode a PNG, JPEG, BMP, GIF (first frame) or WebP file: uint8 (H, W, channels).

    Gray becomes RGB by repetition, RGB becomes gray by ITU-R 601 luma; transparency is dropped.
    channels: 1 or 3; None for 1 if the file is gray and 3 otherwise. source: The name of the image
    in messages. Raises UserError for other files, for damage, for more than 8 bits per channel, and
    for more than `MOST_PIXELS`, which are counted before they are decoded.
    """
    with foreign.reading(source, KINDS), _opened(encoded) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise UserError(
                f"{shown(source, 300)} has {width} x {height} pixels, more than {MOST_PIXELS:,}"
            )
        # Pillow silently drops the lower bytes of PNG files in colour. Byte 24 of a PNG file is the
        # depth, in its first chunk.
        deep = image.format == "PNG" and encoded[24] > 8
        if deep or image.mode.startswith(("I", "F")):
            raise UserError(f"{shown(source, 300)} has more than 8 bits per channel")
        # A palette has its colours in a table, and counts as colour.
        channels = channels or (1 if image.mode in GRAY else 3)
        pixels = np.asarray(
            image if image.mode == MODES[channels] else image.convert(MODES[channels])
        )
        return pixels.reshape(*pixels.shape[:2], channels)


def shorter_side(encoded: bytes, source: str = "the image") -> int:
    """Return the width or height of an image file, whichever is less, from its head.

    Raises UserError for a file that is no image. source: see `decode`.
    """
    with foreign.reading(source, KINDS), _opened(encoded) as image:
        return min(image.size)


def _opened(encoded: bytes) -> Image.Image:
    try:
        # The formats are named, since some of Pillow's readers start other programs.
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    # Pillow's own text shows the BytesIO object.
    except UnidentifiedImageError as error:
        raise ValueError("not in the form of one") from error


def convert_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return gray as RGB or back, as `decode` does it: uint8 (H, W, 1 or 3) -> (H, W, channels)."""
    if pixels.shape[-1] == channels:
        return pixels
    converted = np.asarray(_to_pillow(pixels).convert(MODES[channels]))
    return converted.reshape(*converted.shape[:2], channels)


def fit(
    pixels: np.ndarray, size: int, source: str = "the image", *, small: str = "refuse"
) -> np.ndarray:
    """Resize the shorter side to `size` (bilinear, antialiased) and crop the centre square.

    pixels: uint8 (H, W, 1 or 3). Returns uint8 (size, size, 1 or 3), `pixels` itself if it has
    that size. The longer side is rounded down. The crop's offset is rounded to the nearest number,
    and to the even one when it lies halfway. Published results rest on torchvision's Resize and
    CenterCrop, which do the same. source: how messages call the image.

    small: what becomes of images whose shorter side is less than `size`. "up" enlarges them, by the
    same filter, which invents no values beyond those of the neighbours as a bicubic one would.
    "pad" keeps every pixel as it is and puts black around them, evenly; an odd row or column is at
    the bottom or at the right. UserError is raised for every other word.
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    # Enlarging teaches a network the blur of the interpolation, so that it must be asked for.
    if min(height, width) < size and small not in FITTED:
        raise UserError(
            f"{shown(source, 300)} has {width}x{height} pixels, less than data.image_size={size}: "
            f"{WAYS_TO_FIT}, 'skip' leaves them out"
        )
    if min(height, width) < size and small == "pad":
        return _padded(pixels, size)
    short = min(height, width)
    new_width, new_height = int(size * width / short), int(size * height / short)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    resized = _to_pillow(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR)
    cropped = resized.crop((left, top, left + size, top + size))
    return np.asarray(cropped).reshape(size, size, channels)


def _padded(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the centre of the image in the centre of a black square, pixel by pixel."""
    square = np.zeros((size, size, pixels.shape[-1]), pixels.dtype)
    # Along a side that is longer than the square, the roles of the two change.
    (rows, square_rows), (columns, square_columns) = (
        (_centre(side, size), _centre(size, side)) for side in pixels.shape[:2]
    )
    square[square_rows, square_columns] = pixels[rows, columns]
    return square


def _centre(length: int, size: int) -> slice:
    """Return the `size` pixels in the middle of a side, or all of it if it has no more."""
    start = max(length - size, 0) // 2
    return slice(start, start + min(size, length))


def encode_png(pixels: np.ndarray) -> bytes:
    """Return uint8 (H, W, 1 or 3) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    _to_pillow(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _to_pillow(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
