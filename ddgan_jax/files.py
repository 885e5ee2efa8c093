"""Small files of a run folder, written whole or not at all."""

import contextlib
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
