"""Lock paths, so that a second process does not write to them.

Buckets (gs://...) have no locks; there the launcher must start a run only once. Some file systems
have none either, such as Lustre without the option `flock`; there the program warns and goes on.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from etils import epath

from ddgan_jax.errors import BusyError, UserError, reason, shown
from ddgan_jax.files import ours
from ddgan_jax.files.atomic import removed_at_the_end, write_errors
from ddgan_jax.files.paths import LONGEST_NAME, is_bucket, user_path

# Seconds to wait for a process that is just ending.
PATIENCE = 2.0
# The errors of a file system that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextlib.contextmanager
def only_writer(
    place: str | os.PathLike,
    *,
    lock: str | os.PathLike | None = None,
    patience: float | None = None,
) -> Iterator[None]:
    """Lock the path of a file or a folder inside the context; missing parent folders are made.

    The system releases the lock when this process ends, however it ends. lock: a file to lock that
    stays there, whose folder is made; None: a file beside `place`, which is removed at the end.
    patience: seconds to wait for another process, None: PATIENCE. Raises BusyError if another
    process has locked it, UserError if the lock file cannot be written.
    """
    if is_bucket(place):
        yield
        return
    locked = _lock_beside(Path(place)) if lock is None else Path(lock)
    with write_errors(place):
        locked.parent.mkdir(parents=True, exist_ok=True)
    with _held(locked, place, PATIENCE if patience is None else patience) as file:
        if file is None or lock is not None:
            yield
            return
        # The lock file is removed while the lock is still held.
        with removed_at_the_end(locked):
            yield


@contextlib.contextmanager
def output_file(
    text: str | os.PathLike,
    *suffixes: str,
    what: str = "out",
    new: bool = False,
    force: bool = False,
) -> Iterator[epath.Path]:
    """Yield the path of a file that a person named for a result, locked inside the context.

    This finds out whether the file can be written before the long work on its content begins. A
    file that this program wrote may be replaced, so that a command can be repeated; any other one
    is refused. suffixes: the endings that its name may have; none: any. what: the parameter's name,
    as in `user_path`. new: refuse every file that exists. force: replace any. Raises UserError, and
    BusyError as `only_writer`.
    """
    path = user_path(text, what)
    # A name such as ".png" has no ending, for it begins with its only dot.
    if suffixes and os.path.splitext(path.name)[1].lower() not in suffixes:
        *others, last = suffixes
        listed = f"{', '.join(others)} or {last}" if others else last
        only = path.name.lower().endswith(suffixes)
        remedy = "put a name before its ending" if only else f"end its name in {listed}"
        raise UserError(f"cannot write {shown(path, 300)}: {remedy}")
    # Renaming would replace a pipe or a device by a file. (epath calls them files.)
    if not is_bucket(path) and os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "no regular file"
        raise UserError(f"cannot write {shown(path, 300)}: it is {kind}")
    with only_writer(path):
        if new and path.exists():
            raise UserError(f"{shown(path, 300)} exists already: name another file, or move it")
        if not force and path.exists():
            with write_errors(path):
                replaceable = ours.may_be_replaced(path)
            if not replaceable:
                raise UserError(
                    f"{shown(path, 300)} exists already, and this program did not write it: name "
                    "another file, or replace it with `force`"
                )
        yield path


def is_held(lock: str | os.PathLike) -> bool:
    """Return whether another process has locked this file; False where nobody can tell."""
    if is_bucket(lock):
        return False
    try:
        with open(lock, opener=_open_at_once) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def _held(lock: Path, place: str | os.PathLike, patience: float) -> Iterator[IO | None]:
    """Yield the locked file; None where the file system has no locks."""
    end = time.monotonic() + patience
    while True:
        with write_errors(place):
            file = open(lock, "a", opener=_open_at_once)  # noqa: SIM115  closed just below
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # This error alone says that another process holds the lock.
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise BusyError(
                        f"another process is writing {shown(place, 300)}: wait for it, or name "
                        "another place"
                    ) from error
                time.sleep(0.05)
                continue
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                print(
                    f"{shown(place, 300)} cannot be locked ({reason(error)}): see to it that no "
                    "other process writes there",
                    file=sys.stderr,
                )
                yield None
                return
            if _still_there(file, lock):
                yield file
                return
            # Another process removed the file after we opened it and before we locked it. That lock
            # protects nothing, so try again.


def _open_at_once(path: str, flags: int) -> int:
    # A pipe of that name, in somebody's folder, must not make us wait for its reader.
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _still_there(file: IO, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    except OSError:
        return False


def _lock_beside(place: Path) -> Path:
    name = f".{place.name}.lock"
    if len(os.fsencode(name)) > LONGEST_NAME:
        # A digest in place of the name still gives each path a lock of its own.
        name = f".{hashlib.sha256(os.fsencode(place.name)).hexdigest()}.lock"
    return place.parent / name
