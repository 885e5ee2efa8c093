"""Config files and JSON: reading a config, writing it down, naming its fields."""

import difflib
import json
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.errors import UserError


def load_config(path: str) -> ConfigDict:
    """The config that a Python file's `get_config` returns, locked against new fields.

    path: "configs/x.py", or "configs/x.py:argument" for `get_config("argument")`.
    Raises UserError if there is no such file, or if it does not yield a ConfigDict.
    """
    file, has_argument, argument = path.partition(":")
    try:
        source = Path(file).read_bytes()
    except OSError as error:
        known = sorted(str(p) for p in Path(file).parent.glob("*.py"))
        message = f"config file {file} cannot be read ({error.strerror})"
        raise UserError(message + did_you_mean(file, known)) from error
    try:
        namespace = {"__name__": "config", "__file__": file}
        exec(compile(source, file, "exec"), namespace)
        config = namespace["get_config"](*([argument] if has_argument else []))
    except UserError:
        raise
    except Exception as error:  # whatever a user's own file raises is for the user to read
        raise UserError(f"config file {file}: {_describe(error, file)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config file {file}: get_config must return a ConfigDict")
    return config.lock()


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON with sorted keys; `from_json` is its inverse."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The locked config that `to_json` wrote. Raises UserError if it is not one."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"this is not a config in JSON ({error})") from error
    if not isinstance(tree, dict):
        raise UserError("this is not a config in JSON (it has no fields)")
    return from_dict(tree)


def from_dict(tree: Mapping[str, Any]) -> ConfigDict:
    """The locked config of a tree that JSON gave back, whose sequences are lists."""
    return ConfigDict(_lists_to_tuples(tree)).lock()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message that names the nearest known word; "" if none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields as (full name, value), such as ("train.batch_size", 256)."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _lists_to_tuples(tree: Any) -> Any:
    # JSON knows one kind of sequence, configs use the other.
    if isinstance(tree, dict):
        return {key: _lists_to_tuples(value) for key, value in tree.items()}
    return tuple(map(_lists_to_tuples, tree)) if isinstance(tree, list) else tree


def _describe(error: Exception, file: str) -> str:
    if isinstance(error, KeyError) and error.args == ("get_config",):
        return "it does not define get_config"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"
