"""Small files of a run folder, written whole or not at all."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from etils import epath

from ddgan_jax.errors import UserError


@contextlib.contextmanager
def write_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns a failed write to `path` inside the context into a UserError that says why."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def is_bucket(path: str | os.PathLike) -> bool:
    """Whether a path names object storage, such as gs://bucket/run, instead of a file system."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def only_writer(run_dir: str | os.PathLike) -> Iterator[None]:
    """Holds the run folder, made if missing, against a second process that would write into it.

    The system lets go when the process ends, however it ends. Buckets (gs://...) have no locks:
    there it is the launcher's business. Raises UserError if another process holds the folder.
    """
    folder = epath.Path(run_dir)
    if is_bucket(run_dir):
        yield
        return
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is training in {run_dir}: wait for it, or name another folder"
            ) from error
        yield


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file in place of what was there; a kill leaves the old one or the new one whole.

    Folders above it are made. Raises UserError if it cannot be written.
    """
    path = epath.Path(path)
    unfinished = path.parent / f".{path.name}.tmp"
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content)
            unfinished.replace(path)
        except OSError:
            with contextlib.suppress(OSError):  # it may be missing, or the disk read-only
                unfinished.unlink()
            raise


def append_line(path: str | os.PathLike, line: str) -> None:
    """Adds a line to a text file; a kill may tear it, but none before it. Raises OSError."""
    path = epath.Path(path)
    if is_bucket(path):  # objects cannot grow: written anew, small as these files are
        before = path.read_text() if path.exists() else ""
        path.write_text(f"{before}{line}\n")
        return
    with path.open("a") as file:
        file.write(f"{line}\n")
