"""Many images to files: in memory only a chunk of them, and an interrupted job goes on.

    a folder           one PNG per image, named by its seed; images that are there are not drawn
    .npz               images (N, H, W, C) with seeds and labels, in the order of the request
    .npy               the images alone
    .array_record      one PNG per record in the same order, its seed and label as PNG texts

The last three are single files that cannot grow: chunks are collected in the folder OUT.parts,
each under the positions that it holds, and joined in one pass when all are there. What draws is
described in a small file, so that a job never goes on with images of another model.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign, locks
from ddgan_jax.files.arrays import open_arrays
from ddgan_jax.files.atomic import replacing, write_atomically, write_errors
from ddgan_jax.files.paths import entries, is_bucket
from ddgan_jax.files.progress import Pace, duration
from ddgan_jax.inference.parts import list_parts, read_parts, write_part
from ddgan_jax.inference.places import Place, place_of

SECONDS_BETWEEN_LINES = 10.0  # of progress, where there is no terminal
JOB = ".job.json"
LARGEST_JOB = 2**20  # bytes


class Job(NamedTuple):
    """What to write.

    what: tells this drawing from any other, JSON; images of equal ones may lie in one folder.
    count: of images. names: of their files, without ending. facts: arrays (N,) that go beside the
    images. draw: the images at the given positions, in chunks (n, H, W, C), or with several steps
    of each (n, steps, H, W, C); uint8, or float32 points.
    """

    what: Mapping[str, Any]
    count: int
    names: Callable[[], Sequence[str]]
    facts: Mapping[str, np.ndarray]
    draw: Callable[[np.ndarray], Iterator[np.ndarray]]


def write(job: Job, out: str | os.PathLike) -> None:
    """Draw and write what is missing at `out`; its ending says how, as above.

    When it returns, everything that it promises is there and can be read. Raises UserError if `out`
    ends otherwise, holds something else, or cannot be written; BusyError if another process is
    writing it.
    """
    place = place_of(out)
    if place.form == ".png":
        raise UserError(
            f"{shown(out, 300)} would be one picture: name a file of arrays, or a folder"
        )
    with locks.only_writer(place.path):
        if place.form:
            _write_file(job, place)
        else:
            _write_folder(job, place.path)


def _write_file(job: Job, place: Place) -> None:
    out = place.path
    if out.exists():
        raise UserError(f"{shown(out, 300)} exists already: name another file, or move it")
    parts = out.parent / f"{out.name}.parts"
    identity = {**job.what, "count": job.count, "facts": _checksum(job.facts)}
    with write_errors(out):
        with _claimed(parts, identity, ".npy"):
            _draw_parts(job, parts)
        with replacing(out) as unfinished:
            _FORMATS[place.form](job, read_parts(parts), unfinished)
            if not _holds(job.count, place.form, unfinished):
                raise UserError(
                    f"{shown(out, 300)} could not be written: not all of its {job.count:,} images "
                    "can be read again; the same command tries again"
                )
        parts.rmtree()


# ------------------------------------------------------------------------------------ a folder


def _write_folder(job: Job, out: epath.Path) -> None:
    with write_errors(out), _claimed(out, job.what, ".png"):
        names = [f"{name}.png" for name in job.names()]
        missing = _missing(out, names)
        remaining = iter(missing)
        for chunk in _shown(job.draw(missing), job.count - len(missing), job.count):
            for image, position in zip(chunk, remaining, strict=False):
                write_atomically(out / names[position], _png(image))
        if left := len(_missing(out, names)):
            raise UserError(
                f"{left:,} of {job.count:,} images in {shown(out, 300)} could not be written, or "
                "were taken away; the same command writes them"
            )


def _missing(folder: epath.Path, names: Sequence[str]) -> np.ndarray:
    """Return the positions of the files that are not there, or not to their end."""
    there = {path.name for path in entries(folder, after=".png")}
    whole = [name in there and _is_whole(folder / name) for name in names]
    return np.flatnonzero(~np.array(whole))


def _is_whole(path: epath.Path) -> bool:
    if is_bucket(path):
        return True  # objects appear whole
    with foreign.open_regular(path, "picture") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - len(_END_OF_PNG), 0))
        return file.read() == _END_OF_PNG


_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"


def _png(image: np.ndarray, texts: Mapping[str, Any] | None = None) -> bytes:
    """Return a PNG file of a uint8 image (H, W, C), or of several (n, H, W, C) in a row."""
    if image.dtype != np.uint8:
        raise UserError("these are points and no images: name a .png, an .npy or an .npz")
    if image.ndim == 4:
        image = np.concatenate(list(image), axis=1)
    info = PngImagePlugin.PngInfo()
    for key, value in (texts or {}).items():
        info.add_text(key, str(value))
    content = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(pixels).save(content, format="PNG", pnginfo=info)
    return content.getvalue()


# -------------------------------------------------------------------------------- single files


def _draw_parts(job: Job, parts: epath.Path) -> None:
    there = list_parts(parts)
    done = there[-1].last if there else 0
    positions = np.arange(done, job.count)
    for chunk in _shown(job.draw(positions), done, job.count):
        write_part(parts, done, chunk)
        done += len(chunk)


def _save_npy(job: Job, chunks: Iterable[np.ndarray], out: epath.Path) -> None:
    with out.open("wb") as file:
        _write_array(file, job.count, chunks)


def _save_npz(job: Job, chunks: Iterable[np.ndarray], out: epath.Path) -> None:
    with out.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in job.facts.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, values)
        with archive.open("images.npy", "w", force_zip64=True) as entry:
            _write_array(entry, job.count, chunks)


def _write_array(file: Any, count: int, chunks: Iterable[np.ndarray]) -> None:
    """Write one array in numpy's format from its parts."""
    for number, chunk in enumerate(chunks):
        if number == 0:
            np.lib.format.write_array_header_1_0(
                file,
                {
                    "descr": np.lib.format.dtype_to_descr(chunk.dtype),
                    "fortran_order": False,
                    "shape": (count, *chunk.shape[1:]),
                },
            )
        file.write(chunk.tobytes())


def _save_array_record(job: Job, chunks: Iterable[np.ndarray], out: epath.Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(os.fspath(out), "group_size:1")
    try:
        position = 0
        for chunk in chunks:
            for image in chunk:
                facts = {name: values[position] for name, values in job.facts.items()}
                writer.write(_png(image, facts))
                position += 1
    finally:
        writer.close()


def _count_arrays(name: str, path: epath.Path) -> int:
    form = open_arrays(path).forms.get(name)
    return form.shape[0] if form and form.shape else 0


def _count_records(path: epath.Path) -> int:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(os.fspath(path))
    try:
        return reader.num_records()
    finally:
        reader.close()


def _holds(count: int, form: str, path: epath.Path) -> bool:
    try:
        return _COUNTS[form](path) == count
    except UserError:
        return False


# How a file is written, and how many images it turns out to hold.
_FORMATS: Mapping[str, Callable[[Job, Iterable[np.ndarray], epath.Path], None]] = {
    ".npy": _save_npy,
    ".npz": _save_npz,
    ".array_record": _save_array_record,
}
_COUNTS: Mapping[str, Callable[[epath.Path], int]] = {
    ".npy": functools.partial(_count_arrays, ""),
    ".npz": functools.partial(_count_arrays, "images"),
    ".array_record": _count_records,
}


# ------------------------------------------------------------------------- of the same drawing


@contextlib.contextmanager
def _claimed(folder: epath.Path, what: Mapping[str, Any], ours: str) -> Iterator[None]:
    """Give the context in which the folder is that of a drawing, see `_claim`.

    A mistake that shows before the first image leaves no folder behind.
    """
    made = not folder.exists()
    _claim(folder, what, ours)
    try:
        yield
    except Exception:
        if made and not entries(folder, after=ours):
            folder.rmtree()
        raise


def _claim(folder: epath.Path, what: Mapping[str, Any], ours: str) -> None:
    """Make the folder that of the drawing `what`.

    ours: how names of images end in it. Raises UserError if it is that of another drawing.
    """
    description = (json.dumps(what, sort_keys=True) + "\n").encode()
    mark = folder / JOB
    if mark.exists():
        found = foreign.read_bytes(mark, "description of images", most=LARGEST_JOB)
        if found == description:
            return
        foreign.decode_json(found, source=mark)
        raise UserError(
            f"{shown(folder, 300)} holds images of another model, or drawn with other options: "
            "name another place, or move it"
        )
    if entries(folder, after=ours):
        raise UserError(f"{shown(folder, 300)} holds other images: name another folder, or move it")
    write_atomically(mark, description)


def _checksum(facts: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, values in facts.items():
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------ progress


def _shown(chunks: Iterable[np.ndarray], done: int, total: int) -> Iterator[np.ndarray]:
    """Yield the same chunks; what is written of them is shown on stderr, as a bar or in lines.

    The first chunk, whose program is compiled, only starts the clock.
    """
    if done:
        print(f"{done:,} of {total:,} images are there", file=sys.stderr)
    pace, last_line = Pace(total, 1), time.monotonic()
    terminal = sys.stderr.isatty()
    bar = tqdm(
        total=total,
        initial=done,
        file=sys.stderr,
        dynamic_ncols=True,
        bar_format="{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} images{postfix}",
        disable=not terminal,
    )
    with contextlib.closing(bar):
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            bar.update(len(chunk))
            speed = pace.mark(done, time.monotonic())
            if speed is None:
                continue
            text = f"{speed[0]:,.3g} images/s, {duration(speed[1])} left"
            bar.set_postfix_str(text)
            due = time.monotonic() - last_line >= SECONDS_BETWEEN_LINES
            if due and not terminal:
                print(f"{done:,} of {total:,} images  {text}", file=sys.stderr, flush=True)
                last_line = time.monotonic()
