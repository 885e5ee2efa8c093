"""Read and write configs as Python files and as JSON, and list the full names of their fields."""

import ast
import json
import os
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.errors import UserError, did_you_mean, reason, shown
from ddgan_jax.files.foreign import read_bytes
from ddgan_jax.files.paths import entries, user_path

# Bytes of a config file: a larger file is some other one, named by mistake.
LARGEST_FILE = 2**20
# Levels of groups within groups: a tree from a foreign file must not exhaust Python's stack.
DEEPEST = 20
# The configs that ship with the package.
SHIPPED = Path(__file__).parents[1] / "configs"


def shipped_configs() -> dict[str, str]:
    """Return the first docstring line of each config that ships, by name; no file is executed."""
    return {
        file.stem: (ast.get_docstring(ast.parse(file.read_bytes())) or "").partition("\n")[0]
        for file in sorted(SHIPPED.glob("[!_]*.py"))
    }


def load_config(path: str) -> ConfigDict:
    """Return the config that a Python file's `get_config` returns, locked against new fields.

    path: "configs/x.py", or "configs/x.py:argument" for `get_config("argument")`. The file is code
    of the user and runs with the rights of this process. Raises UserError if there is no such
    file, if the file raises anything, and if it does not return a ConfigDict.
    """
    file, arguments = _split(path)
    source = read_bytes(user_path(file, "config"), "config file", most=LARGEST_FILE)
    try:
        # The file is executed and not imported, since its folder need not be a package, and its
        # name need not be an identifier.
        namespace: dict[str, Any] = {"__name__": "config", "__file__": file}
        exec(compile(source, file, "exec"), namespace)
        config = namespace["get_config"](*arguments)
        if isinstance(config, ConfigDict):
            # A group that contains itself raises RecursionError here, and not later in a place that
            # names no file.
            list(leaves(config))
    # A UserError of the file, as from `apply_variant`, is a message for the user already.
    except (UserError, KeyboardInterrupt):
        raise
    # SystemExit is caught too: a config file must not end the program.
    except BaseException as error:
        raise UserError(f"config file {shown(file, 300)}: {_describe(error, file)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config file {shown(file, 300)}: get_config must return a ConfigDict")
    # A locked ConfigDict refuses new fields, so that a misspelled name is an error and no new
    # setting.
    return config.lock()


def _split(path: str) -> tuple[str, list[str]]:
    """Return the file that a path names, and the argument behind it as a list of one or none.

    Folders and files may have colons in their names, and so may arguments: the longest part of the
    path that exists is the file. Raises UserError if none does.
    """
    parts = path.split(":")
    for count in range(len(parts), 0, -1):
        file = ":".join(parts[:count])
        if os.path.exists(os.path.expanduser(file)):
            return file, [":".join(parts[count:])] if count < len(parts) else []
    # No part of the path exists. The rest finds the most helpful message: what stands behind the
    # last colon is taken for an argument unless the path ends like a file.
    file = path if path.endswith(".py") or len(parts) == 1 else path.rpartition(":")[0]
    place = user_path(file, "config")
    try:
        os.stat(place)
    except OSError as error:
        known = (os.fspath(other) for other in entries(place.parent, after=".py"))
        message = f"config file {shown(file, 300)} cannot be read ({error.strerror})"
        raise UserError(message + did_you_mean(file, known)) from error
    # The file has appeared since the loop above.
    return file, []


def to_json(config: ConfigDict) -> str:
    """Return the config as indented JSON with sorted keys; `from_json` is its inverse."""
    # Sorted keys give equal configs equal files.
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """Return the locked config that `to_json` wrote. Raises UserError if it is not one."""
    try:
        tree = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)
    # Python raises ValueError also for integers of more than 4,300 digits.
    except (ValueError, RecursionError) as error:
        raise UserError(f"this is not a config in JSON ({reason(error)})") from error
    return from_dict(tree)


def from_dict(tree: Mapping[str, Any]) -> ConfigDict:
    """Return the locked config of a tree as `json.loads` gives it, with lists for tuples.

    Raises UserError if it is not a tree of named fields.
    """
    if not isinstance(tree, Mapping):
        raise UserError("this is not a config in JSON (it has no fields)")
    try:
        return ConfigDict(lists_to_tuples(tree)).lock()
    # ConfigDict raises several kinds of errors, as for fields with the names of its own methods.
    except Exception as error:
        raise UserError(f"this is not a config in JSON ({reason(error)})") from error


def lists_to_tuples(tree: Any, depth: int = 0) -> Any:
    """Return the tree with tuples for its lists: JSON has only lists, and configs only tuples.

    Raises ValueError for more than DEEPEST levels.
    """
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if isinstance(tree, Mapping):
        return {key: lists_to_tuples(value, depth + 1) for key, value in tree.items()}
    if isinstance(tree, list):
        return tuple(lists_to_tuples(value, depth + 1) for value in tree)
    return tree


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all fields as (full name, value), such as ("train.batch_size", 256)."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a JSON object; refuse a name that occurs twice."""
    # JSON allows a name twice, and json.loads would take the last value without a word.
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{shown(twice)} occurs twice")
    return fields


def _refuse_constant(name: str) -> None:
    # Python's json reads NaN and Infinity, which no other reader of the file need understand.
    raise ValueError(f"{name} is no number of JSON")


def _describe(error: BaseException, file: str) -> str:
    """Return the error of a user's file for a message, with its line."""
    if isinstance(error, KeyError) and error.args == ("get_config",):
        return "it does not define get_config"
    if isinstance(error, SyntaxError):
        where = f"line {error.lineno}: " if error.lineno else ""
        return f"{where}{shown(error.msg, 300)}"
    # The last line of the user's own file is where the mistake is, even if a library has raised the
    # error.
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {shown(error, 300)}"
