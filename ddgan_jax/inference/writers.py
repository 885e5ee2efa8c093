"""Write many images to files: only a chunk of them is in memory, and an interrupted job goes on.

    a folder           one PNG per image, named by its seed; images that are there are not drawn
    .npz               images (N, H, W, C) with seeds and labels, in the order of the request
    .npy               the images alone
    .array_record      one PNG per record in the same order, its seed and label as PNG texts

The last three are single files that cannot grow. Their chunks are collected in the folder
OUT.parts, each under the positions that it holds, and joined in one pass when all are there. A
small file describes the images, so that a job never goes on with those of another model.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign, locks
from ddgan_jax.files.atomic import replacing, write_atomically, write_errors
from ddgan_jax.files.paths import entries
from ddgan_jax.inference import formats
from ddgan_jax.inference.parts import list_parts, read_parts, write_part
from ddgan_jax.inference.places import Place, place_of
from ddgan_jax.progress import Display

JOB = ".job.json"
# Bytes of the description of a job.
LARGEST_JOB = 2**20


class Job(NamedTuple):
    """The images to write, and how to draw them.

    what: a description in JSON of everything that the images depend on; images of equal ones may
    lie in one folder. num_images: how many there are. names: of their files, without ending. facts:
    arrays (N,) that go beside the images. draw(positions) yields the images at these positions in
    chunks (n, H, W, C), or with several steps of each (n, steps, H, W, C); uint8, or float32
    points.
    """

    what: Mapping[str, Any]
    num_images: int
    names: Callable[[], Sequence[str]]
    facts: Mapping[str, np.ndarray]
    draw: Callable[[np.ndarray], Iterator[np.ndarray]]


def write(job: Job, out: str | os.PathLike) -> None:
    """Draw and write the images that are missing at `out`; its ending says how, as above.

    After it returns, all images are there and can be read. Raises UserError if `out` ends
    otherwise, holds something else, or cannot be written; BusyError if another process is writing
    it.
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
    # A file has all images or none, so that their number and their facts belong to its identity; a
    # folder may grow.
    identity = {**job.what, "count": job.num_images, "facts": _checksum(job.facts)}
    with write_errors(out):
        with _claimed(parts, identity, ".npy"):
            _draw_parts(job, parts)
        with replacing(out) as unfinished:
            form = formats.FORMATS[place.form]
            form.write(unfinished, job.num_images, job.facts, read_parts(parts))
            # Reading the count finds what a full disk has cut off, while the parts are still there.
            if not formats.holds(unfinished, place.form, job.num_images):
                raise UserError(
                    f"{shown(out, 300)} could not be written: not all of its {job.num_images:,} "
                    "images can be read again; the same command tries again"
                )
        # Only now: until the file is in its place, the parts are the only copy.
        parts.rmtree()


def _draw_parts(job: Job, parts: epath.Path) -> None:
    there = list_parts(parts)
    done = there[-1].last if there else 0
    positions = np.arange(done, job.num_images)
    with progress_of(done, job.num_images) as display:
        for chunk in display.counted(job.draw(positions)):
            write_part(parts, done, chunk)
            done += len(chunk)


def progress_of(done: int, total: int) -> Display:
    """Return the display of images that are drawn, of which some may be there already."""
    if done:
        print(f"{done:,} of {total:,} images are there", file=sys.stderr)
    # The first chunk waits for the compiler.
    phase = "compiling the sampler"
    return Display(total, done, title="drawing", unit="images", logs=True, phase=phase)


# ------------------------------------------------------------------------------------ a folder


def _write_folder(job: Job, out: epath.Path) -> None:
    with write_errors(out), _claimed(out, job.what, ".png"):
        names = [f"{name}.png" for name in job.names()]
        missing = _missing(out, names)
        remaining = iter(missing)
        with progress_of(job.num_images - len(missing), job.num_images) as display:
            for chunk in display.counted(job.draw(missing)):
                # The chunk stands first: zip then stops at its end before it takes a position.
                for image, position in zip(chunk, remaining, strict=False):
                    write_atomically(out / names[position], formats.to_png(image))
        # Somebody may have taken images away while others were drawn.
        if left := len(_missing(out, names)):
            raise UserError(
                f"{left:,} of {job.num_images:,} images in {shown(out, 300)} could not be written, "
                "or were taken away; the same command writes them"
            )


def _missing(folder: epath.Path, names: Sequence[str]) -> np.ndarray:
    """Return the positions of the files that are missing, or not there to their end."""
    # One listing instead of a look at each file: folders may hold 50,000 of them.
    there = {path.name for path in entries(folder, after=".png")}
    whole = [name in there and formats.is_whole_png(folder / name) for name in names]
    return np.flatnonzero(~np.array(whole))


# ---------------------------------------------------------------------- whose images these are


@contextlib.contextmanager
def _claimed(folder: epath.Path, what: Mapping[str, Any], ours: str) -> Iterator[None]:
    """Claim the folder, as `_claim` does, for the time of the context.

    An error before the first image leaves no folder behind.
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
    """Write into the folder which images it is for, or check that it is for these.

    ours: the ending of images' names in it. Raises UserError if the folder has other images.
    """
    description = (json.dumps(what, sort_keys=True) + "\n").encode()
    mark = folder / JOB
    if mark.exists():
        found = foreign.read_bytes(mark, "description of images", most=LARGEST_JOB)
        if found == description:
            return
        # A damaged description has a message of its own; another one in order is of another model.
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
