"""Check and expand the paths that people write, before anything is opened."""

import importlib.util
import os
import re
from pathlib import Path

from etils import epath

from ddgan_jax.errors import UserError, shown

# Object storage that etils can open, each with the packages of which it needs one.
BUCKETS = {
    "gs": ("gcsfs", "tensorflow"),
    "s3": ("s3fs", "tensorflow"),
    "az": ("adlfs", "tensorflow"),
}
# Bytes of one name, on every file system in common use.
LONGEST_NAME = 255
# Bytes that Linux takes at once.
LONGEST_PATH = 4095
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.\-]*)://")
_SLASHES = re.compile(r":/{2,}")
_PATTERN = re.compile(r"[\[\]*?]")


def is_bucket(path: str | os.PathLike) -> bool:
    """Return whether a path names object storage, such as gs://bucket/run."""
    # Every scheme counts, so that an unknown one is refused and not taken for a folder.
    return bool(_SCHEME.match(os.fspath(path)))


def user_path(text: str | os.PathLike, what: str = "the path") -> epath.Path:
    """Return the path that a person wrote, with ~ and ~user expanded.

    what: the name of the parameter that holds the path, such as "workdir", or words for messages.
    Whether anything is there does not matter. Raises UserError for a path that no file system could
    hold, for a home folder that is not known, and for a URL that this program cannot open.
    """
    # The system would report most of these mistakes late and in its own words, or, for an empty
    # path, take the current folder.
    written = os.fspath(text)
    if not written:
        name = f"`{what}`" if what.isidentifier() else what
        raise UserError(f"{name} is empty: name a file or a folder")
    named = _named(what, written)
    if "\0" in written:
        raise UserError(f"{named} holds a zero byte, which no name may")
    if scheme := _SCHEME.match(written):
        _check_bucket(scheme[1], named)
        return epath.Path(written)
    path = os.path.expanduser(written)
    if written.startswith("~") and path == written:
        user = written.split("/")[0]
        raise UserError(
            f"{named}: the home folder of {shown(user)} is not known; name the "
            f"folder in full, or ./{shown(user)} if that is its name"
        )
    _check_length(path, _named(what, path))
    # "a:" may be the name of a folder, and etils takes "://" for object storage wherever it stands.
    return epath.Path(_SLASHES.sub(":/", path))


def _named(what: str, path: str) -> str:
    """Return how messages name a path: "`workdir=/x`" for a parameter, else "the image /x"."""
    return f"`{what}={shown(path)}`" if what.isidentifier() else f"{what} {shown(path)}"


def _check_bucket(scheme: str, named: str) -> None:
    if scheme not in BUCKETS:
        raise UserError(
            f"{named}: {scheme}:// is no place that this program can open; name a "
            f"folder, or one in {', '.join(f'{known}://' for known in BUCKETS)}"
        )
    # The packages are looked for and not imported, which would take long.
    if not any(importlib.util.find_spec(package) for package in BUCKETS[scheme]):
        package = BUCKETS[scheme][0]
        raise UserError(f"{named} needs {package}: pip install {package}")


def _check_length(path: str, named: str) -> None:
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise UserError(f"{named} holds characters that no name may") from error
    if len(encoded) > LONGEST_PATH or max(map(len, encoded.split(b"/"))) > LONGEST_NAME:
        raise UserError(
            f"{named} is too long: a name has at most {LONGEST_NAME} bytes, a whole "
            f"path {LONGEST_PATH}"
        )


def run_folder_path(text: str | os.PathLike, what: str = "workdir") -> epath.Path:
    """Return the path of a run folder as `user_path` does.

    The checkpoint library takes the path of a run for a pattern, and for UTF-8. Raises UserError
    for paths under which it could not find again what it has written.
    """
    path = user_path(text, what)
    whole = os.path.abspath(path) if not is_bucket(path) else os.fspath(path)
    # The folders above the run count, too, since the library resolves the path.
    if found := _PATTERN.search(whole):
        raise UserError(
            f"{_named(what, whole)} holds {found[0]}, which the checkpoint library takes for a "
            "pattern: name a run folder without any of [ ] * ?"
        )
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{_named(what, whole)} is not UTF-8, as the checkpoint library needs it: name "
            "another run folder"
        ) from error
    return path


def entries(folder: str | os.PathLike, before: str = "", after: str = "") -> list[epath.Path]:
    """Return the entries of a folder whose names begin and end as given, sorted by name.

    Names are compared and never taken for patterns. For a folder that is missing, or that may not
    be read, the list is empty.
    """
    folder = epath.Path(folder)
    try:
        found = list(folder.iterdir())
    except OSError:
        return []
    fitting = (
        path
        for path in found
        if path.name.startswith(before)
        and path.name.endswith(after)
        and len(path.name) >= len(before) + len(after)
    )
    return sorted(fitting, key=lambda path: path.name)


def cache_folder() -> Path | None:
    """Return the folder for files that are made once and kept for later; it need not exist.

    It is $XDG_CACHE_HOME/ddgan_jax, by default ~/.cache/ddgan_jax, or None where there is no home
    folder: nothing is kept then. A path that is not absolute is ignored, as XDG demands.
    """
    if os.path.isabs(home := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(home) / "ddgan_jax"
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / "ddgan_jax" if os.path.isabs(home) else None
