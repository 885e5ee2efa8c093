"""List folders and zip files of images, and read their files.

`open_folder` lists the images, and counts what is left out by reason. Hidden names are left out,
only regular files are opened, and links are followed only inside the folder. A zip file is read in
place, without extracting it. `image_layouts` says which split and class an image belongs to.
"""

import dataclasses
import errno
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from ddgan_jax.data import decode, image_metadata
from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files import foreign, paths

# Bytes of one image file.
LARGEST_FILE = 2**28
# Files that a message names.
MOST_NAMED = 10
# Characters of a name's ending that messages show.
LONGEST_SUFFIX = 10
# The labels of a StyleGAN or EDM set, beside its images.
INDEX = "dataset.json"

HIDDEN = "hidden"
NO_IMAGE = "not named as an image"
IRREGULAR = "no regular file"
A_FOLDER = "a folder"
LINK_OUT = "a link out of the folder"
LINK_IN_A_CIRCLE = "a link in a circle"
LINK_AGAIN = "a link to a folder that another link has shown"
BROKEN_LINK = "a broken link"
TOO_LARGE = f"larger than {LARGEST_FILE:,} bytes"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFolder:
    """The images of a folder or a zip file.

    root: the folder or the file. names: paths inside it, with slashes, sorted. skipped: the number
    of files that were left out, by reason. read: returns the bytes of a file by name, or raises
    UserError. index: the name of `dataset.json`, None if there is none. metadata: the names of
    `metadata.csv` and the like, see `image_metadata`. status: size and time of change of each of
    all these files, by which a changed folder is recognised.
    """

    root: Path
    names: tuple[str, ...]
    skipped: Counter[str]
    read: Callable[[str], bytes]
    index: str | None
    metadata: tuple[str, ...]
    status: tuple[tuple[int, int], ...]

    def source(self, name: str) -> str:
        """Return how messages call an image."""
        return f"{self.root}/{name}"


class _Found(NamedTuple):
    name: str
    size: int
    # The time in nanoseconds, or the checksum that a zip file has.
    changed: int


def open_folder(path: str | os.PathLike, what: str = "images") -> ImageFolder:
    """List the images of a folder, to any depth, or of a zip file.

    what: how messages call the path. Raises UserError if there is no such folder or file, if
    a folder in it may not be read, or if it holds no image.
    """
    root = Path(paths.user_path(path, what))
    with foreign.reading(root, "folder of images"):
        if paths.is_bucket(path):
            raise UserError(f"images are read from local or mounted folders: copy or mount {path}")
        if stat.S_ISDIR(os.stat(root).st_mode):
            # Whether a link leads out of the folder can be told of real paths only.
            root = Path(os.path.realpath(root))
            found, skipped = _walk(root)
            read = _reader_of_files(root)
        elif root.suffix.lower() == ".zip":
            archive = zipfile.ZipFile(_opened(root))
            found, skipped = _entries(archive, root)
            read = _reader_of_entries(archive, root)
        else:
            raise UserError(f"{shown(root, 300)} is not a folder of images, and no .zip of them")
    # File systems list in any order; the order of the set must not depend on them.
    found.sort()
    # Only beside the images at the top is the index one of the whole set.
    index = next((f.name for f in found if f.name == INDEX), None)
    status = tuple((f.size, f.changed) for f in found)
    metadata = tuple(f.name for f in found if _is_metadata(f.name))
    found = [f for f in found if _is_image(f.name)]
    if not found:
        left_out = f" ({summary(skipped)})" if skipped else ""
        raise UserError(f"no image (PNG, JPEG, WebP, BMP, GIF) below {shown(root, 300)}{left_out}")
    names = tuple(f.name for f in found)
    return ImageFolder(root, names, skipped, read, index, metadata, status)


def summary(counts: Counter[str]) -> str:
    """Return counts by reason, for a message: "3 (hidden), 1 (a broken link)"."""
    named = [f"{count:,} ({shown(why)})" for why, count in sorted(counts.items())[:MOST_NAMED]]
    more = sum(counts.values()) - sum(n for _, n in sorted(counts.items())[:MOST_NAMED])
    return ", ".join(named) + (f", {more:,} more" if more else "")


# -------------------------------------------------------------------------------------- folders


def _walk(root: Path) -> tuple[list[_Found], Counter[str]]:
    """List what `root`, a real path, holds. Raises OSError for a folder that may not be read.

    Each folder is listed once by its own name, and at most once more through a link. So links in a
    circle end.
    """
    found, skipped = [], Counter()
    linked: set[tuple[int, int]] = set()
    waiting = [("", False)]
    while waiting:
        inside, through_link = waiting.pop()
        for entry in _listed(root / inside):
            name = f"{inside}{entry.name}"
            # Thumbnails and the folders of version control are nobody's training images.
            if entry.name.startswith("."):
                skipped[HIDDEN] += 1
                continue
            is_link = entry.is_symlink()
            status = _status(root, entry)
            if isinstance(status, str):
                skipped[_named(status, name)] += 1
            elif stat.S_ISDIR(status.st_mode) and _is_table(name):
                skipped[_named(A_FOLDER, name)] += 1
            elif stat.S_ISDIR(status.st_mode):
                # The identity of a folder: its paths may be many.
                key = (status.st_dev, status.st_ino)
                if through_link or is_link:
                    if key in linked:
                        skipped[LINK_AGAIN] += 1
                        continue
                    linked.add(key)
                waiting.append((f"{name}/", through_link or is_link))
            else:
                _take(_Found(name, status.st_size, status.st_mtime_ns), found, skipped)
    return found, skipped


def _listed(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {shown(folder, 300)}: {reason(error)}") from error


def _status(root: Path, entry: os.DirEntry) -> os.stat_result | str:
    """Return the status of a regular file or a folder, or why it is left out."""
    try:
        status = entry.stat()
    except OSError as error:
        # A folder that may not be read is an error, and not a file that is left out.
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return BROKEN_LINK
    if entry.is_symlink():
        target, parent = (os.path.realpath(p) for p in (entry.path, os.path.dirname(entry.path)))
        if not _is_inside(root, target):
            return LINK_OUT
        # A link to a folder that the link itself lies in.
        if _is_inside(target, parent):
            return LINK_IN_A_CIRCLE
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return IRREGULAR
    return status


def _is_inside(root: str | os.PathLike, path: str) -> bool:
    return os.path.commonpath([root, path]) == os.fspath(root)


def _reader_of_files(root: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        return foreign.read_bytes(root / name, "image", most=LARGEST_FILE)

    return read


def _take(entry: _Found, found: list[_Found], skipped: Counter[str]) -> None:
    """Put a regular file among the images or the index, or count why it is neither."""
    if not _is_image(entry.name) and not _is_table(entry.name):
        skipped[_no_image(entry.name)] += 1
    elif entry.size > LARGEST_FILE:
        skipped[_named(TOO_LARGE, entry.name)] += 1
    else:
        found.append(entry)


def _no_image(name: str) -> str:
    """Return why a file is left out, with its kind: "not named as an image: .heic"."""
    suffix = PurePosixPath(name).suffix.lower()
    return f"{NO_IMAGE}: {suffix}" if len(suffix) <= LONGEST_SUFFIX and suffix else NO_IMAGE


def _named(why: str, name: str) -> str:
    """Return why a file is left out; a file of labels is named, since all labels go with it."""
    return f"{name} is {why}" if _is_table(name) else why


def _is_table(name: str) -> bool:
    return name == INDEX or _is_metadata(name)


def _is_metadata(name: str) -> bool:
    # At the top, or in the folder of a split.
    *folders, last = name.split("/")
    return last in image_metadata.NAMES and len(folders) <= 1


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in decode.SUFFIXES


# ------------------------------------------------------------------------------------ zip files


def _opened(path: Path) -> BinaryIO:
    """Open a regular file that stays open as long as its reader is there."""
    # zipfile would open a pipe or a device and wait.
    with foreign.open_regular(path, "zip file of images") as file:
        return os.fdopen(os.dup(file.fileno()), "rb")


def _entries(archive: zipfile.ZipFile, path: Path) -> tuple[list[_Found], Counter[str]]:
    """List a zip file. Raises UserError if two entries have one name."""
    found, skipped = [], Counter()
    for entry in archive.infolist():
        parts = entry.filename.split("/")
        # The upper half has the Unix mode, 0 in archives that were made on other systems.
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir():
            continue
        if any(part.startswith(".") for part in parts):
            skipped[HIDDEN] += 1
        elif "" in parts or kind not in (0, stat.S_IFREG):
            skipped[_named(IRREGULAR, entry.filename)] += 1
        else:
            _take(_Found(entry.filename, entry.file_size, entry.CRC), found, skipped)
    if len({f.name for f in found}) < len(found):
        double = next(name for name, n in Counter(f.name for f in found).items() if n > 1)
        raise UserError(f"{shown(path, 300)} holds {shown(double)} twice")
    return found, skipped


def _reader_of_entries(archive: zipfile.ZipFile, path: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        with foreign.reading(f"{path}/{name}", "entry of a zip file"), archive.open(name) as stream:
            # The size in the header was checked, and a damaged archive may hold more than it says.
            content = stream.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE or stream.read(1):
                raise ValueError("longer than it says")
            return content

    return read
