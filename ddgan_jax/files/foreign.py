"""Read files that this process did not write; every such file is read through this module.

A file may be damaged, may come from a stranger, or may be something else than its name says. This
module therefore sees to it that

- only regular files are opened, never a pipe or a device, and never one that a file names by a
  path: `member` takes plain names inside a folder;
- sizes are bounded before anything is allocated;
- any exception of a reader becomes one UserError with the file's name and the fault;
- types and ranges of values are checked against a declared type, and JSON has no NaN.

Nothing that a file holds is called, imported or unpickled.
"""

import contextlib
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from typing import Any, TypeVar

import msgspec
from etils import epath

from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files.paths import is_bucket

T = TypeVar("T")

LARGEST_JSON = 64 * 2**20  # bytes of a whole JSON file
LARGEST_LINE = 2**20  # bytes of a line of a log, or of a small file that nothing hangs on
DEEPEST = 50  # levels of nesting
# Lines of a log that are named as skipped.
MOST_NAMED = 3


# ------------------------------------------------------------------------------------- errors


@contextlib.contextmanager
def reading(source: str | os.PathLike, what: str) -> Iterator[None]:
    """Turn any exception inside the context into a UserError that names the file.

    what: the kind of file that is expected, for "x.npz is damaged, or no file of statistics". Put
    only the decoding of foreign bytes into the context: a bug of ours in it would look like damage.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"cannot read {shown(source, 300)}: there is no such file") from error
    except OSError as error:
        raise UserError(f"cannot read {shown(source, 300)}: {reason(error)}") from error
    except MemoryError as error:
        raise UserError(f"{shown(source, 300)} needs more memory than there is") from error
    except RecursionError as error:
        # A file can be nested so deeply that a parser which recurses ends here.
        raise UserError(f"{shown(source, 300)} is no {what}: it is nested too deeply") from error
    except Exception as error:
        raise UserError(
            f"{shown(source, 300)} is damaged, or no {what} ({reason(error)})"
        ) from error


def half_of_memory() -> int:
    """Return half of this machine's memory in bytes: the most that a file's content may take."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


# ------------------------------------------------------------------------------------- bytes


@contextlib.contextmanager
def open_regular(path: str | os.PathLike, what: str = "file") -> Iterator[BufferedReader]:
    """Open a regular file for reading; raise UserError for a folder, a pipe or a device.

    Any exception inside the context becomes a UserError, as in `reading`.
    """
    with reading(path, what):
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            os.close(number)
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise UserError(f"cannot read {shown(path, 300)}: it is {kind}")
        with open(number, "rb") as file:
            yield file


def read_bytes(path: str | os.PathLike, what: str = "file", *, most: int | None = None) -> bytes:
    """Return the content of a regular file, or of an object in a bucket.

    most: the largest size in bytes; None: `half_of_memory`. Raises UserError for a larger file, and
    for one that cannot be read.
    """
    most = half_of_memory() if most is None else most
    if is_bucket(path):
        with reading(path, what):
            path = epath.Path(path)
            # The size comes first, since an object is always read as a whole.
            _check_size(path, path.stat().length, most)
            return path.read_bytes()
    with open_regular(path, what) as file:
        size = os.fstat(file.fileno()).st_size
        _check_size(path, size, most)
        # `read` allocates as much as it is asked for, so this asks for the file's size. Files of
        # the system (/proc) claim to be empty, and files grow: the rest comes in small parts.
        content = file.read(size + 1)
        while more := file.read(2**16):
            content += more
            _check_size(path, len(content), most)
        return content


def _check_size(path: str | os.PathLike, size: int, most: int) -> None:
    if size > most:
        raise UserError(f"{shown(path, 300)} is too large: {size:,} bytes, at most {most:,}")


def member(folder: str | os.PathLike, name: str) -> epath.Path:
    """Return the path of a file inside a folder, where the name comes from another file.

    Raises UserError for anything but a plain name, such as a path or the parent folder.
    """
    plain = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
    if not plain:
        raise UserError(f"{shown(folder, 300)} names the file {shown(name)}, which is not in it")
    return epath.Path(folder) / name


# ------------------------------------------------------------------------------------- values


def decode_json(
    content: bytes, kind: Callable[..., T] | Any = dict[str, Any], *, source: str | os.PathLike
) -> T:
    """Decode JSON into a value of the msgspec type `kind`, whose numbers are finite.

    Raises UserError, naming `source` and the place in it, for anything else.
    """
    with reading(source, "JSON"):
        _check_size(source, len(content), LARGEST_JSON)
        try:
            return _finite(msgspec.json.decode(content, type=kind), source)
        except msgspec.ValidationError as error:
            raise UserError(f"{shown(source, 300)}: {reason(error)}") from error
        except msgspec.DecodeError as error:
            raise UserError(f"{shown(source, 300)} is not JSON ({reason(error)})") from error


def read_json(path: str | os.PathLike, kind: Callable[..., T] | Any = dict[str, Any]) -> T:
    """Decode a JSON file; see `decode_json`. Raises UserError also if it is missing."""
    return decode_json(read_bytes(path, "JSON file", most=LARGEST_JSON), kind, source=path)


def read_if_whole(
    path: str | os.PathLike, kind: Callable[..., T] | Any, *, report: Callable[[str], None]
) -> T | None:
    """Decode a small JSON file without which the work goes on; see `decode_json`.

    Returns None if it is missing, and if it is damaged, which one line to `report` then tells.
    """
    path = epath.Path(path)
    try:
        if path.exists():
            content = read_bytes(path, "JSON file", most=LARGEST_LINE)
            return decode_json(content, kind, source=path)
    except (UserError, OSError) as error:
        report(f"went on without {path.name}: {reason(error)}")
    return None


def convert(value: Any, kind: Callable[..., T] | Any, *, source: str | os.PathLike) -> T:
    """Convert a value that came from a file to the msgspec type `kind`.

    Raises UserError, naming `source` and the place in it, for a value of another type or range.
    """
    with reading(source, "file of that kind"):
        try:
            return _finite(msgspec.convert(value, kind), source)
        except msgspec.ValidationError as error:
            raise UserError(f"{shown(source, 300)}: {reason(error)}") from error


def _finite(value: T, source: str | os.PathLike) -> T:
    """Return the value. Raises UserError for numbers that are not finite and for deep nesting."""
    # JSON has no infinity, but an integer that is too large for a float becomes one.
    # A list and no recursion, since the file decides how deep its values are nested.
    waiting: list[tuple[Any, int]] = [([value], 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > DEEPEST:
            raise UserError(f"{shown(source, 300)} is nested more than {DEEPEST} levels deep")
        if isinstance(node, msgspec.Struct):
            node = msgspec.structs.asdict(node)
        for child in node.values() if isinstance(node, Mapping) else node:
            if isinstance(child, float):
                if not math.isfinite(child):
                    raise UserError(f"{shown(source, 300)} holds a number that is not finite")
            elif isinstance(child, dict | list | tuple | msgspec.Struct):
                waiting.append((child, depth + 1))
    return value


def read_log(
    path: str | os.PathLike,
    kind: Callable[..., Any] | Any = dict[str, Any],
    *,
    make: Callable[[Any], T] = lambda value: value,
    report: Callable[[str], None],
) -> list[T]:
    """Return the lines of a log, of which each is a JSON value of the type `kind`.

    A missing log has no lines. A log never blocks anybody: lines that a kill has torn, or that hold
    something else, are left out, and one line to `report` names them; the same for a log that
    cannot be read at all. make: turns a value into the item for the list; it raises UserError for a
    line that is to be left out.
    """
    try:
        content = read_bytes(path, "log") if epath.Path(path).exists() else b""
    except (UserError, OSError) as error:
        report(f"went on without {shown(path, 300)}: {reason(error)}")
        return []
    lines = log_lines(content, kind, make=make, source=path, report=report)
    return [value for _, value in lines]


def log_lines(
    content: bytes,
    kind: Callable[..., Any] | Any = dict[str, Any],
    *,
    make: Callable[[Any], T] = lambda value: value,
    source: str | os.PathLike,
    report: Callable[[str], None],
) -> list[tuple[bytes, T]]:
    """Return the lines of a log as bytes, each with its value; see `read_log`."""
    found, skipped = [], []
    # One decoder serves all lines, instead of a new one for each.
    decode = msgspec.json.Decoder(kind).decode
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            _check_size("the line", len(line), LARGEST_LINE)
            try:
                value = _finite(decode(line), source)
            except (ValueError, RecursionError):
                # The slower way, which says what is wrong with the line.
                value = decode_json(line, kind, source=source)
            found.append((line, make(value)))
        except UserError as error:
            text = str(error).removeprefix(shown(source, 300)).strip(" :")
            skipped.append(f"line {number} ({text})")
    if skipped:
        more = len(skipped) - MOST_NAMED
        rest = f" and {more:,} more" if more > 0 else ""
        named = "; ".join(skipped[:MOST_NAMED])
        report(f"skipped what is no line of a log in {shown(source, 300)}: {named}{rest}")
    return found
