"""Execute a config file, which may import its neighbours, and say where a mistake in it lies.

A config file is Python and runs with the rights of this process. While it runs, its own folder and
the current one are the last two places where Python looks for modules: a neighbour replaces no
library, and `ddgan`, `python -m ddgan_jax` and notebooks find the same modules.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections

from ddgan_jax.errors import UserError, did_you_mean, shown

# A name that no neighbour can have.
_NAME = "<config file>"
_PACKAGE = __name__.partition(".")[0]


def returned_by(file: str, source: bytes, arguments: Sequence[str]) -> Any:
    """Return what `get_config(*arguments)` of a config file returns. source: the file's content.

    Raises UserError with the file and the line if it raises anything.
    """
    folders = [os.path.dirname(os.path.abspath(file)), os.getcwd()]
    # The file is executed and not imported, since its name need not be an identifier.
    module = ModuleType(_NAME)
    module.__file__ = file
    try:
        with _neighbours(folders):
            sys.modules[_NAME] = module
            exec(compile(source, file, "exec"), module.__dict__)
            if not hasattr(module, "get_config"):
                raise UserError(f"config file {shown(file, 300)}: it does not define get_config")
            return module.get_config(*arguments)
    # A UserError of the file, as from `apply_variant`, is a message for the user already.
    except (UserError, KeyboardInterrupt):
        raise
    # SystemExit is caught too: a config file must not end the program.
    except BaseException as error:
        problem = _describe(error, file, folders)
        raise UserError(f"config file {shown(file, 300)}: {problem}") from error


@contextlib.contextmanager
def _neighbours(folders: Sequence[str]) -> Iterator[None]:
    """Let modules in the folders be imported within the context; nothing of them stays behind it.

    Two config files that import neighbours of one name therefore each get their own, and a
    neighbour that has changed is read anew.
    """
    path, writes_bytecode = list(sys.path), sys.dont_write_bytecode
    others = {n: m for n, m in sys.modules.items() if n == _NAME or _is_in(m, folders)}
    for name in others:
        del sys.modules[name]
    # `python -m` and notebooks have the current folder in front.
    sys.path[:] = [entry for entry in path if os.path.abspath(entry) not in folders] + [*folders]
    # A file that changes twice within a second would be taken from bytecode that is out of date.
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # A config file may add places of its own.
        added = {os.path.abspath(entry) for entry in sys.path if entry not in path}
        found = [name for name, m in sys.modules.items() if _is_in(m, {*folders, *added})]
        for name in [_NAME, *found]:
            sys.modules.pop(name, None)
        sys.modules.update(others)
        sys.path[:], sys.dont_write_bytecode = path, writes_bytecode


def _is_in(module: ModuleType, folders: Sequence[str] | set[str]) -> bool:
    """Return whether a module was found in one of the folders, as such or in a package there."""
    place = _place(getattr(module, "__dict__", {}))
    return place in folders and place not in _LIBRARIES


def _place(namespace: Mapping[str, Any]) -> str:
    """Return the entry of sys.path by which a module was found; "" if it was in none."""
    name, file = namespace.get("__name__"), namespace.get("__file__")
    # This package is no neighbour, though a checkout of it may be the current folder.
    if not isinstance(name, str) or name.partition(".")[0] == _PACKAGE:
        return ""
    levels = name.count(".")
    if isinstance(file, str):
        levels += os.path.basename(file).startswith("__init__.")
    else:
        # A package without __init__.py has only folders, which are looked up anew: that fails if
        # somebody has removed its parent from sys.modules.
        with contextlib.suppress(Exception):
            file = next(iter(namespace.get("__path__") or ()), None)
    if not isinstance(file, str):
        return ""
    parents = Path(os.path.abspath(file)).parents
    return str(parents[levels]) if levels < len(parents) else ""


# Libraries stay imported, though the current folder may be the one that holds them.
_LIBRARIES = (_place(vars(os)), _place(vars(ml_collections)))


def _describe(error: BaseException, file: str, folders: Sequence[str]) -> str:
    """Return the error of a user's file for a message, with its line, and its file if another."""
    if isinstance(error, SyntaxError) and error.lineno and os.path.exists(error.filename or ""):
        return f"{_where(str(error.filename), error.lineno, file)}{shown(error.msg, 300)}"
    # The last line of the user's own files is where the mistake is, even if a library has raised
    # the error.
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == frame.f_globals.get("__file__")
        and (frame.f_code.co_filename == file or _place(frame.f_globals) in folders)
    ]
    where = _where(*places[-1], file) if places else ""
    hint = _hint(error, folders) if isinstance(error, ModuleNotFoundError) else ""
    return f"{where}{type(error).__name__}: {shown(error, 300)}{hint}"


def _where(found: str, line: int, file: str) -> str:
    return f"line {line}: " if found == file else f"{shown(found, 300)}, line {line}: "


def _hint(error: ModuleNotFoundError, folders: Sequence[str]) -> str:
    """Return the end of the message about a module that is not there."""
    name = str(error.name or "")
    if name.partition(".")[0] == "configs":
        return "; the configs that ship are in ddgan_jax.configs"
    # The files of this package's own configs are where a copied one has had its neighbours.
    if name.isidentifier() and (Path(__file__).parents[1] / "configs" / f"{name}.py").exists():
        return f"; the config that ships is {_PACKAGE}.configs.{name}"
    neighbours = (entry.stem for folder in folders for entry in Path(folder).glob("*.py"))
    return did_you_mean(name, neighbours)
