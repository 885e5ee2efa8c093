"""Find the file that --config names: a path of the user, or the name of a config that ships."""

import ast
import os
from pathlib import Path
from typing import NamedTuple

from ddgan_jax.errors import UserError, did_you_mean, reason, shown
from ddgan_jax.files.foreign import reading
from ddgan_jax.files.paths import entries, is_bucket, user_path

# The folder of the configs that ship, as modules of the package.
SHIPPED = Path(__file__).parents[1] / "configs"
_SUFFIXES = (".py", ".json")


class Found(NamedTuple):
    """A config file, and the argument behind it as a list of one or none."""

    file: str
    arguments: list[str]


def shipped_configs() -> dict[str, str]:
    """Return the first docstring line of each config that ships, by name; no file is executed."""
    return {
        file.stem: (ast.get_docstring(ast.parse(file.read_bytes())) or "").partition("\n")[0]
        for file in _shipped()
    }


def find(path: str) -> Found:
    """Return the file that a path such as "configs/x.py:argument" or "x:argument" names.

    The name of a config that ships is that config. In everything else the longest part that exists
    is the file, since folders, files and arguments may have colons in their names. Raises UserError
    if there is none, and if a shipped name could also mean a file in the current folder.
    """
    name, colon, argument = path.partition(":")
    if name in _names():
        _refuse_ambiguous(name)
        return Found(os.fspath(SHIPPED / f"{name}.py"), [argument] if colon else [])
    if is_bucket(path) or "\0" in path:
        # Both are no local path, and `user_path` has the message where there is a mistake.
        return Found(os.fspath(user_path(path, "config")), [])
    parts = path.split(":")
    for count in range(len(parts), 0, -1):
        file = ":".join(parts[:count])
        if os.path.exists(os.path.expanduser(file)):
            return Found(file, [":".join(parts[count:])] if count < len(parts) else [])
    # No part of the path exists. The rest finds the most helpful message: what stands behind the
    # last colon is taken for an argument unless the path ends like a file.
    file = path if path.endswith(_SUFFIXES) or len(parts) == 1 else path.rpartition(":")[0]
    place = user_path(file, "config")
    try:
        os.stat(place)
    except OSError as error:
        if "/" not in file and not file.endswith(_SUFFIXES):
            raise UserError(_no_such_name(file)) from error
        message = f"config file {shown(file, 300)} cannot be read ({reason(error)})"
        raise UserError(message + _nearest(file, place.parent)) from error
    # The file has appeared since the loop above.
    return Found(file, [])


def _shipped() -> list[Path]:
    return sorted(SHIPPED.glob("[!_]*.py"))


def _names() -> list[str]:
    return [file.stem for file in _shipped()]


def _refuse_ambiguous(name: str) -> None:
    """Refuse a shipped name if another file of that name lies in the current folder."""
    # Somebody has copied the config to change it: either may be meant, and a run of the wrong one
    # would show only in its results.
    here, shipped = Path(f"{name}.py"), SHIPPED / f"{name}.py"
    with reading(here, "config file"):
        if not here.is_file():
            return
        same_size = here.stat().st_size == shipped.stat().st_size
        is_copy = same_size and here.read_bytes() == shipped.read_bytes()
    if not is_copy:
        raise UserError(
            f"config {name} ships with this program, and {name}.py here is another one: write "
            f"./{name}.py for this file, or rename the file to take the other"
        )


def _no_such_name(name: str) -> str:
    files = [file.name for file in entries(".", after=".py")]
    nearest = did_you_mean(name, [*_names(), *files])
    return (
        f"config {shown(name)} is neither a file here nor one that ships"
        f"{nearest or '; these ship: ' + ', '.join(_names())}"
    )


def _nearest(file: str, folder: os.PathLike) -> str:
    """Return the end of the message about a file that is not there."""
    stem = os.path.basename(file).removesuffix(".py")
    # Outside of a checkout "configs/x.py" means the config x that ships.
    if stem in _names():
        return f"; did you mean {stem}, which ships with this program?"
    neighbours = [os.fspath(other) for other in entries(folder, after=".py")]
    return did_you_mean(file, neighbours) or did_you_mean(stem, _names())
