"""Write files and folders whole or not at all.

New content is written beside its path, under a name that no other process uses, and is renamed when
all of it is on the disk. A kill at any instant therefore leaves the old content or the new one, and
two writers of one path never mix their halves. An object in a bucket appears whole anyway.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files.paths import is_bucket

# The beginning of the names of unfinished files.
UNFINISHED = ".unfinished-"

# Unfinished files of this process. A signal ends it without running any `finally`, and the thread
# that handles signals removes them then.
_unfinished: set[str] = set()


@contextlib.contextmanager
def write_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn an OSError of a write to `path` inside the context into a UserError with the reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {shown(path, 300)}: {reason(error)}") from error


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, replacing one that was there.

    Missing parent folders are made. Raises UserError if it cannot be written.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[epath.Path]:
    """Yield a path for a file, which replaces `path` when the context ends without an error.

    Missing parent folders are made. Raises UserError for an OSError inside the context.
    """
    path = epath.Path(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_bucket(path):
            yield path
            return
        with _unfinished_beside(path) as unfinished:
            yield epath.Path(unfinished)
            # The content must be on the disk before the name is, or a loss of power could leave an
            # empty file.
            _to_disk(unfinished)
            unfinished.replace(path)
        _to_disk(path.parent)


@contextlib.contextmanager
def whole_folder(
    out: str | os.PathLike,
    *,
    replace: Callable[[epath.Path], bool] | None = None,
    remedy: str = "name another folder",
) -> Iterator[epath.Path]:
    """Yield a folder to fill, which becomes `out` when the context ends without an error.

    replace: decides whether the folder at `out` may be replaced; None: nothing may be. remedy: what
    the user can do then, for the message. Another process must not write the same folder meanwhile:
    see `locks.only_writer`. Raises UserError if `out` exists and may not be replaced, or if it
    cannot be written.
    """
    out = epath.Path(out)
    old = out.parent / f"{UNFINISHED}old-{out.name}"[:200]
    with write_errors(out):
        # A kill between the two renamings below leaves the old folder under its other name.
        if old.exists() and not out.exists():
            old.rename(out)
        if os.path.lexists(out) and replace is None:
            raise UserError(f"{shown(out, 300)} exists already: {remedy}")
        if out.exists() and replace and not replace(out):
            raise UserError(
                f"{shown(out, 300)} exists and is something else, which would be lost: name "
                "another folder"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished_beside(out) as unfinished:
            unfinished.mkdir()
            yield epath.Path(unfinished)
            for file in [*unfinished.rglob("*"), unfinished]:
                _to_disk(file)
            if out.exists():
                _remove(old)
                out.rename(old)
            unfinished.rename(out)
        _to_disk(out.parent)
        _remove(old)


def append_line(path: str | os.PathLike, line: str) -> None:
    """Append a line to a text file. A kill may tear this line, but none before or after it.

    Raises OSError.
    """
    path = epath.Path(path)
    if is_bucket(path):
        # Objects cannot grow. The file is written anew, which its size allows.
        before = path.read_text() if path.exists() else ""
        path.write_text(f"{before}{line}\n")
        return
    with open(path, "ab+", buffering=0) as file:
        # A line that a kill has torn has no end. This one must not be glued to it.
        end = file.seek(0, os.SEEK_END)
        torn = bool(end) and (file.seek(end - 1), file.read(1))[1] != b"\n"
        file.write(f"{chr(10) * torn}{line}\n".encode())


def remove_unfinished() -> None:
    """Remove the unfinished files of this process, which is about to end."""
    for name in list(_unfinished):
        _remove(Path(name))


@contextlib.contextmanager
def removed_at_the_end(path: str | os.PathLike) -> Iterator[Path]:
    """Yield the path; remove the file or folder there when the context ends, however it ends."""
    # An absolute name stays right if the process changes its folder.
    name = os.path.abspath(path)
    _unfinished.add(name)
    try:
        yield Path(path)
    finally:
        _remove(name)
        _unfinished.discard(name)


def _unfinished_beside(path: epath.Path) -> contextlib.AbstractContextManager[Path]:
    """Yield an unused path in the same folder; what is left there is removed at the end."""
    name = f"{UNFINISHED}{os.getpid()}-{secrets.token_hex(8)}"
    return removed_at_the_end(Path(path.parent) / name)


def _remove(path: str | os.PathLike) -> None:
    # It may be gone already, or the disk may be read-only.
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _to_disk(path: str | os.PathLike) -> None:
    """Wait until a file, or a folder's list of names, is on the disk. Raises OSError for a file."""
    # Not every file system can do this for folders, nor lets everybody open one. There we rely on
    # the order in which the system writes.
    forgiven = (OSError,) if os.path.isdir(path) else ()
    with contextlib.suppress(*forgiven):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
