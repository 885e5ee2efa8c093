"""From stored to trained-on: decode one image, fit its size, convert its channels. Pillow only."""

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # Pillow's others can start helper programs
MODES = {1: "L", 3: "RGB"}  # channels: Pillow's name
# What Pillow raises, depending on where the damage lies.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """Decodes a PNG, JPEG, BMP, GIF (first frame) or WebP file: uint8 (H, W, channels).

    Gray becomes RGB by repetition, RGB becomes gray by ITU-R 601 luma; transparency is dropped.

    Raises:
      one of `BROKEN`: not such a file, damaged, or more than 8 bits per channel.
    """
    try:
        opened = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError as error:  # its own text shows the BytesIO object
        raise OSError("not in the form of an image") from error
    with opened as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode} has more than 8 bits per channel")
        pixels = np.asarray(
            image if image.mode == MODES[channels] else image.convert(MODES[channels])
        )
    return pixels.reshape(*pixels.shape[:2], channels)


def convert_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Gray to RGB or back, as `decode` does it: uint8 (H, W, 1 or 3) -> (H, W, channels)."""
    if pixels.shape[-1] == channels:
        return pixels
    converted = np.asarray(_to_pillow(pixels).convert(MODES[channels]))
    return converted.reshape(*converted.shape[:2], channels)


def fit(pixels: np.ndarray, size: int) -> np.ndarray:
    """Shrinks the shorter side to `size` (bilinear, antialiased) and crops the centre square.

    pixels: uint8 (H, W, 1 or 3). Returns uint8 (size, size, 1 or 3), `pixels` itself if it has
    that size. The longer side is rounded down, the crop's offset to the nearest even number when
    it lies halfway: what torchvision's Resize and CenterCrop do, on which published results rest.

    Raises:
      ValueError: the shorter side is less than `size`.
    """
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    if min(height, width) < size:
        raise ValueError(f"{width}x{height} pixels, less than data.image_size = {size}")
    short = min(height, width)
    new_width, new_height = int(size * width / short), int(size * height / short)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    resized = _to_pillow(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR)
    cropped = resized.crop((left, top, left + size, top + size))
    return np.asarray(cropped).reshape(size, size, channels)


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 1 or 3) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    _to_pillow(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _to_pillow(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
