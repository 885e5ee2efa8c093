"""Read and write configs as Python files and as JSON, and list the full names of their fields."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config.execution import returned_by
from ddgan_jax.config.finding import find
from ddgan_jax.config.finding import shipped_configs as shipped_configs
from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files.foreign import LARGEST_JSON, read_bytes, reading
from ddgan_jax.files.paths import is_bucket, user_path

# Bytes of a config file: a larger file is some other one, named by mistake.
LARGEST_FILE = 2**20
# Levels of groups within groups: a tree from a foreign file must not exhaust Python's stack.
DEEPEST = 20


def load_config(path: str) -> ConfigDict:
    """Return the config in a file, locked against new fields.

    path: a Python file whose `get_config` returns the config, as "configs/x.py", or
    "configs/x.py:argument" for `get_config("argument")`; the name of a config that ships, as
    "digits_ddgan:tiny"; or config.json of a run or of an export. A Python file is code of the user
    and runs with the rights of this process. Raises UserError if there is no such file, if the file
    raises anything, and if it does not hold a config.
    """
    file, arguments = find(path)
    if file.endswith(".json"):
        return _read_json(file, arguments)
    if is_bucket(file):
        raise UserError(f"config file {shown(file, 300)}: copy it, Python files are read locally")
    place = user_path(file, "config")
    if place.is_dir() and (place / "config.json").exists():
        raise UserError(f"{shown(file, 300)} is a folder; its config is {place / 'config.json'}")
    source = read_bytes(place, "config file", most=LARGEST_FILE)
    config = returned_by(os.fspath(place), source, arguments)
    if not isinstance(config, ConfigDict):
        raise UserError(f"config file {shown(file, 300)}: get_config must return a ConfigDict")
    try:
        # A group that contains itself raises RecursionError here, and not later in a place that
        # names no file.
        list(leaves(config))
    except Exception as error:
        problem = f"{type(error).__name__}: {shown(error, 300)}"
        raise UserError(f"config file {shown(file, 300)}: {problem}") from error
    # A locked ConfigDict refuses new fields, so that a misspelled name is an error and no new
    # setting.
    return config.lock()


def _read_json(file: str, arguments: Sequence[str]) -> ConfigDict:
    """Return the config in config.json of a run, or of an export without its local paths."""
    # Imported here, since both modules import this one.
    from ddgan_jax.config.defaults import empty_local_paths
    from ddgan_jax.config.stored import from_stored

    if arguments:
        raise UserError(f"config file {shown(file, 300)} is JSON and takes no argument")
    content = read_bytes(user_path(file, "config"), "config", most=LARGEST_JSON)
    try:
        with reading(file, "config in JSON"):
            tree = _parse(content.decode())
        # An export keeps its config among other things.
        stored = tree.get("config") if isinstance(tree, Mapping) else None
        config = from_stored(tree if stored is None else stored)
        if stored is not None:
            # The paths are those of another machine.
            empty_local_paths(config)
    except UserError as error:
        raise UserError(f"{shown(file, 300)}: {error}") from error
    return config


def to_json(config: ConfigDict) -> str:
    """Return the config as indented JSON with sorted keys; `from_json` is its inverse."""
    # Sorted keys give equal configs equal files.
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """Return the locked config that `to_json` wrote. Raises UserError if it is not one."""
    return from_dict(_parse(text))


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


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)
    # Python raises ValueError also for integers of more than 4,300 digits.
    except (ValueError, RecursionError) as error:
        raise UserError(f"this is not a config in JSON ({reason(error)})") from error


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
