"""Write files of many images in parts: PNG files with texts, .npy, .npz and .array_record."""

import functools
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath
from PIL import Image, PngImagePlugin

from ddgan_jax.errors import UserError, whole_install
from ddgan_jax.files import foreign
from ddgan_jax.files.arrays import open_arrays
from ddgan_jax.files.paths import is_bucket

# The chunk that ends every PNG file: its length, its name and its checksum.
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"

Facts = Mapping[str, np.ndarray]
Write = Callable[[epath.Path, int, Facts, Iterable[np.ndarray]], None]


class Format(NamedTuple):
    """A kind of file. write(out, count, facts, chunks); count(path) images are in a file."""

    write: Write
    count_images: Callable[[epath.Path], int]


def holds(path: epath.Path, form: str, count: int) -> bool:
    """Return whether a file of that format can be read and holds so many images."""
    try:
        return FORMATS[form].count_images(path) == count
    except UserError:
        return False


# ----------------------------------------------------------------------------------------- PNG


def to_png(image: np.ndarray, texts: Mapping[str, Any] | None = None) -> bytes:
    """Return a PNG file of a uint8 image (H, W, C), or of several (n, H, W, C) in a row."""
    if image.dtype != np.uint8:
        raise UserError("these are points and no images: name a .png, an .npy or an .npz")
    if image.ndim == 4:
        image = np.concatenate(list(image), axis=1)
    info = PngImagePlugin.PngInfo()
    for key, value in (texts or {}).items():
        info.add_text(key, str(value))
    content = io.BytesIO()
    # Pillow takes gray images without an axis of channels.
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(pixels).save(content, format="PNG", pnginfo=info)
    return content.getvalue()


def is_whole_png(path: epath.Path) -> bool:
    """Return whether a PNG file is there to its end, which a kill may have cut off."""
    if is_bucket(path):
        # Objects of buckets appear whole.
        return True
    with foreign.open_regular(path, "picture") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - len(_END_OF_PNG), 0))
        return file.read() == _END_OF_PNG


# -------------------------------------------------------------------------------------- arrays


def _write_npy(out: epath.Path, count: int, facts: Facts, chunks: Iterable[np.ndarray]) -> None:
    with out.open("wb") as file:
        _write_array(file, count, chunks)


def _write_npz(out: epath.Path, count: int, facts: Facts, chunks: Iterable[np.ndarray]) -> None:
    with out.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in facts.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, values)
        # The size is not known before the end, and may be more than a plain entry can have.
        with archive.open("images.npy", "w", force_zip64=True) as entry:
            _write_array(entry, count, chunks)


def _write_array(file: IO[bytes], count: int, chunks: Iterable[np.ndarray]) -> None:
    """Write one array of so many images in numpy's format, chunk by chunk."""
    for number, chunk in enumerate(chunks):
        if number == 0:
            header = {
                "descr": np.lib.format.dtype_to_descr(chunk.dtype),
                "fortran_order": False,
                "shape": (count, *chunk.shape[1:]),
            }
            # The header comes before the numbers and has the count of all images, which is known
            # beforehand.
            np.lib.format.write_array_header_1_0(file, header)
        file.write(chunk.tobytes())


def _count_in_arrays(name: str, path: epath.Path) -> int:
    form = open_arrays(path).forms.get(name)
    return form.shape[0] if form and form.shape else 0


# ------------------------------------------------------------------------------------- records


def _write_records(out: epath.Path, count: int, facts: Facts, chunks: Iterable[np.ndarray]) -> None:
    with whole_install("an .array_record"):
        from array_record.python.array_record_module import ArrayRecordWriter

    # Groups of one record can be read in any order without unpacking their neighbours.
    writer = ArrayRecordWriter(os.fspath(out), "group_size:1")
    try:
        images = (image for chunk in chunks for image in chunk)
        for position, image in enumerate(images):
            texts = {name: values[position] for name, values in facts.items()}
            writer.write(to_png(image, texts))
    finally:
        writer.close()


def _count_records(path: epath.Path) -> int:
    with whole_install("an .array_record"):
        from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(os.fspath(path))
    try:
        return reader.num_records()
    finally:
        reader.close()


FORMATS = {
    ".npy": Format(_write_npy, functools.partial(_count_in_arrays, "")),
    ".npz": Format(_write_npz, functools.partial(_count_in_arrays, "images")),
    ".array_record": Format(_write_records, _count_records),
}
