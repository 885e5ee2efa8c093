"""Writing files and folders whole or not at all.

What is written lies beside its place, under a name that no other process has, until all of it is on
the disk; then it is renamed. A kill at any instant leaves the old content or the new one, and two
writers of one place never see each other's halves. An object in a bucket appears whole anyway.
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

UNFINISHED = ".unfinished-"  # names of what is being written begin so

# What this process has not finished, for an end that no `finally` sees.
_unfinished: set[str] = set()


@contextlib.contextmanager
def write_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn a failed write to `path` inside the context into a UserError that says why."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {shown(path, 300)}: {reason(error)}") from error


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file in place of what was there.

    Folders above it are made. Raises UserError if it cannot be written.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[epath.Path]:
    """Give a file to write, which takes the place of `path` when the context ends without an error.

    Folders above it are made. Raises UserError for an OSError inside.
    """
    path = epath.Path(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_bucket(path):
            yield path
            return
        with _unfinished_beside(path) as unfinished:
            yield epath.Path(unfinished)
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
    """Give a folder to fill, which becomes `out` when the context ends without an error.

    replace: whether what is at `out` may go; None: nothing may. remedy: what to do then, for the
    message. Another process must not write the same folder meanwhile: see `locks.only_writer`.
    Raises UserError if something is there that stays, or the folder cannot be written.
    """
    out = epath.Path(out)
    old = out.parent / f"{UNFINISHED}old-{out.name}"[:200]
    with write_errors(out):
        if old.exists() and not out.exists():  # a kill between the two renamings below
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
    """Add a line to a text file; a kill may tear it, but none before or after it.

    Raises OSError.
    """
    path = epath.Path(path)
    if is_bucket(path):  # objects cannot grow: written anew, small as these files are
        before = path.read_text() if path.exists() else ""
        path.write_text(f"{before}{line}\n")
        return
    with open(path, "ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        torn = bool(end) and (file.seek(end - 1), file.read(1))[1] != b"\n"
        file.write(f"{chr(10) * torn}{line}\n".encode())


def remove_unfinished() -> None:
    """Remove what this process has begun and not finished; the process ends after it."""
    for name in list(_unfinished):
        _remove(Path(name))


@contextlib.contextmanager
def removed_at_the_end(path: str | os.PathLike) -> Iterator[Path]:
    """Give the path, and remove what lies there when the context ends, whatever ends it."""
    name = os.path.abspath(path)
    _unfinished.add(name)
    try:
        yield Path(path)
    finally:
        _remove(name)
        _unfinished.discard(name)


def _unfinished_beside(path: epath.Path) -> contextlib.AbstractContextManager[Path]:
    """Give a name in the same folder that is ours alone; what lies there at the end is removed."""
    name = f"{UNFINISHED}{os.getpid()}-{secrets.token_hex(8)}"
    return removed_at_the_end(Path(path.parent) / name)


def _remove(path: str | os.PathLike) -> None:
    with contextlib.suppress(OSError):  # it may be gone already, or the disk read-only
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _to_disk(path: str | os.PathLike) -> None:
    """Wait until a file, or a folder's list of names, is on the disk.

    Raises OSError for a file. Not every file system knows this for folders, nor lets everybody
    open one: there the order in which the system writes must do.
    """
    forgiven = (OSError,) if os.path.isdir(path) else ()
    with contextlib.suppress(*forgiven):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
