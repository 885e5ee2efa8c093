"""Make sets from folders and zip files of images, for `ddgan prepare` and for data.name=folder.

data.name=folder keeps one copy of a folder among the prepared sets, and makes it anew when the
folder has changed. A run that still reads an older copy locks it, and it is removed only later.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ddgan_jax.data import builders, image_checks, image_folders, prepared
from ddgan_jax.data.builders import ImageSet
from ddgan_jax.data.datasets import FILE
from ddgan_jax.data.image_checks import Form
from ddgan_jax.data.image_folders import ImageFolder
from ddgan_jax.data.image_layouts import Layout, layout_of
from ddgan_jax.errors import shown
from ddgan_jax.files import atomic, paths

# Classes that a report names.
MOST_NAMED = 10
# A file in a copy's folder, which readers lock.
_HOLD = ".in_use"


def builder_of(
    path: str | os.PathLike,
    data_dir: Path,
    name: str,
    report: Callable[[str], None],
) -> ImageSet:
    """Return the builder of a TFDS set from the images of a folder or a zip file, as they are.

    report: takes lines about what was found and what was left out. Raises UserError if there is no
    image, if one cannot be decoded, and as `image_layouts.layout_of` does.
    """
    folder = image_folders.open_folder(path)
    layout = layout_of(folder)
    for line in description(layout, folder.skipped):
        report(line)
    return _builder(folder, layout, data_dir, name, report)


class Copy(NamedTuple):
    """The copy of a folder among the prepared sets.

    hold: an open file that keeps the copy from being removed until it is closed or forgotten.
    """

    folder: Path
    hold: IO | None


def open_copy(path: str | os.PathLike, data_dir: Path) -> Copy:
    """Return a copy of a folder of images as it is now, made if there is none.

    Older copies of the same folder that nobody reads are removed. Raises UserError as `builder_of`
    and `builders.write` do.
    """
    folder = image_folders.open_folder(path, "data.path")
    family = f"folder_{_short_digest(os.fspath(folder.root))}_"
    # The name changes with the names, sizes and times of the files, so that a changed folder never
    # finds the copy of its former state.
    name = f"{family}{_short_digest(repr((folder.names, folder.status, folder.index)))}"
    # The lock comes before the look at the copy, which could be removed in between.
    hold = _held(data_dir / name)
    place = data_dir / name / str(ImageSet.VERSION)
    if not prepared.is_prepared(place):
        builders.write(_builder(folder, layout_of(folder), data_dir, name, lambda line: None))
    _remove_older(data_dir, family, name)
    return Copy(place, hold)


def _builder(
    folder: ImageFolder,
    layout: Layout,
    data_dir: Path,
    name: str,
    report: Callable[[str], None],
) -> ImageSet:
    # Images that the layout leaves out need not be sound.
    names = sorted(name for images in layout.splits.values() for name, _ in images)
    forms = dict(zip(names, image_checks.check_all(folder, names), strict=True))
    metadata = checked(layout, forms, report)
    return ImageSet(
        name,
        f"The images below {os.fsencode(folder.root).decode(errors='replace')}.",
        (None, None, 3),
        layout.classes,
        {split: _examples(folder, images) for split, images in layout.splits.items()},
        data_dir,
        metadata,
    )


def checked(
    layout: Layout, forms: Mapping[str, Form], report: Callable[[str], None]
) -> prepared.Metadata:
    """Return the facts to store about the images of a layout; a line to `report` gives sizes."""
    digest, sides = hashlib.sha256(), []
    # Of names, labels and contents: a run resumes only on the same images in the same classes.
    for split, images in sorted(layout.splits.items()):
        for file, label in images:
            digest.update(repr((split, file, label)).encode() + forms[file].sha256)
            sides.append(min(forms[file].shape[:2]))
    report(builders.sizes(sides))
    return prepared.Metadata(digest.hexdigest(), min(sides), int(np.median(sides)))


def _examples(folder: ImageFolder, images: Any) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for name, label in images:
        # Names of files are bytes, and need not be UTF-8.
        key = os.fsencode(name)
        example = {"image": folder.read(name), FILE: key}
        yield key, example if label is None else example | {"label": label}


def description(layout: Layout, left_out: Counter[str]) -> Iterator[str]:
    """Yield lines about what was found and what was left out, beside what the layout leaves out."""
    yield builders.counted({split: len(images) for split, images in layout.splits.items()})
    if isinstance(layout.classes, int):
        yield f"classes: {layout.classes:,}, without names"
    elif layout.classes:
        counts = layout.class_counts().values()
        pairs = list(zip(layout.classes, map(sum, zip(*counts, strict=True)), strict=True))
        named = ", ".join(f"{shown(name)} ({n:,})" for name, n in pairs[:MOST_NAMED])
        more = f" and {len(pairs) - MOST_NAMED:,} more" if len(pairs) > MOST_NAMED else ""
        yield f"classes: {len(pairs):,}, {named}{more}"
    else:
        yield "classes: none"
    skipped = left_out + layout.skipped
    if skipped:
        yield f"left out: {image_folders.summary(skipped)}"


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


# --------------------------------------------------------------------------------------- copies


def _held(place: Path) -> IO | None:
    """Return the lock file of a copy, made if need be and locked as a reader's.

    Waits while the copy is being removed. None where nothing can be locked: a folder that is only
    read, a file system without locks.
    """
    lock = place / _HOLD
    while True:
        # A folder that somebody else prepared is read without being written.
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            lock.touch()
        try:
            file = lock.open("rb")
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
            # The copy was removed between opening and locking: begin again.
            file.close()
        except FileNotFoundError:
            file.close()
        except OSError:
            file.close()
            return None


def _remove_older(data_dir: Path, family: str, name: str) -> None:
    """Remove other copies of the same folder that no process reads, as far as that is possible."""
    for place in map(Path, paths.entries(data_dir, before=family)):
        if place.name == name:
            continue
        with contextlib.suppress(OSError), (place / _HOLD).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Renamed before it is deleted, so that no reader finds half a set.
            gone = data_dir / f"{atomic.UNFINISHED}{place.name}"
            place.rename(gone)
            shutil.rmtree(gone)
