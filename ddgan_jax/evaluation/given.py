"""Images that somebody gives to be scored: a folder of PNG and JPEG files, an .npy or an .npz."""

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ddgan_jax.data.images import BROKEN, decode
from ddgan_jax.errors import UserError
from ddgan_jax.images import to_uint8

SUFFIXES = (".png", ".jpg", ".jpeg")
CHUNK = 256


class Given(NamedTuple):
    """Images of one size. shape: (H, W, C). read: all of them, uint8 (n, H, W, C) at a time."""

    count: int
    shape: tuple[int, int, int]
    read: Callable[[], Iterator[np.ndarray]]


def open_images(path: str | os.PathLike) -> Given:
    """The images at `path`; an array is uint8, or float in [-1, 1], (N, H, W) or (N, H, W, C).

    An .npz holds it as "images". Gray files are gray only if all are. Raises UserError, in one
    line, for whatever cannot be scored; pixels of arrays are looked at when they are read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.suffix not in (".npy", ".npz"):
        raise UserError(f"--images={path} is no folder of images and no .npy or .npz file")
    return _array(path)


def _folder(path: Path) -> Given:
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"no PNG or JPEG file below {path}")
    forms = [_form(file) for file in files]
    sizes = [size for size, _ in forms]
    other = next((i for i, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        first, second = (
            f"{file.name} has {w} x {h} pixels"
            for file, (w, h) in ((files[0], sizes[0]), (files[other], sizes[other]))
        )
        raise UserError(f"the images below {path} have several sizes: {first}, {second}")
    channels = 1 if all(gray for _, gray in forms) else 3
    width, height = sizes[0]

    def read() -> Iterator[np.ndarray]:
        for start in range(0, len(files), CHUNK):
            yield np.stack([_decode(f, channels) for f in files[start : start + CHUNK]])

    return Given(len(files), (height, width, channels), read)


def _form(file: Path) -> tuple[tuple[int, int], bool]:
    """((width, height), whether it is gray), from the head of the file."""
    try:
        with Image.open(file) as image:
            return image.size, image.mode in ("L", "1")
    except BROKEN as error:
        raise UserError(f"{file} is no readable PNG or JPEG file: {error}") from error


def _decode(file: Path, channels: int) -> np.ndarray:
    try:
        return decode(file.read_bytes(), channels)
    except BROKEN as error:
        raise UserError(f"{file} is no readable PNG or JPEG file: {error}") from error


def _array(path: Path) -> Given:
    try:
        images = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None)
        if path.suffix == ".npz":
            images = images["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read as an array of images: {reason}") from error
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise UserError(f"{path} is {images.shape}: it must be (N, H, W) or (N, H, W, 1 or 3)")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise UserError(f"{path} is {images.dtype}: it must be uint8, or float in [-1, 1]")
    if images.dtype.kind == "f":
        _check_floats(path, images)

    def read() -> Iterator[np.ndarray]:
        for start in range(0, len(images), CHUNK):
            chunk = np.asarray(images[start : start + CHUNK])
            yield chunk if chunk.dtype == np.uint8 else to_uint8(chunk)

    return Given(len(images), images.shape[1:], read)


def _check_floats(path: Path, images: np.ndarray) -> None:
    low, high = np.inf, -np.inf
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        if not np.isfinite(chunk).all():
            raise UserError(f"{path} holds NaN or infinity")
        low, high = min(low, chunk.min()), max(high, chunk.max())
    if low < -1 or high > 1:
        raise UserError(
            f"{path} holds floats from {low:.4g} to {high:.4g}: they must lie in [-1, 1], or be "
            "uint8"
        )
    if low >= 0:
        raise UserError(
            f"{path} holds floats from {low:.4g} to {high:.4g}: if they mean [0, 1], give "
            "2 x - 1, or uint8"
        )
