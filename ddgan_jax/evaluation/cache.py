"""What is made once and then kept in the cache folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ddgan_jax.errors import UserError
from ddgan_jax.files.paths import cache_folder

T = TypeVar("T")


def kept(
    name: str,
    load: Callable[[Path], T],
    make: Callable[[str], T],
    save: Callable[[Path, T], None],
    *,
    is_enough: Callable[[T], bool] = lambda value: True,
    report: Callable[[str], None],
) -> T:
    """Return what the cache folder holds under a name, or make it now and put it there.

    The folder is a convenience and stops nobody: a damaged file is made anew, and where nothing can
    be kept (no home folder, no rights, a full disk) nothing is. Lines to `report` say so. Processes
    that ask at once each make it, and write equal files whole.

    load, save: raise UserError for a file that cannot be used, or written. make: takes where the
    value will be kept, in words. is_enough: whether what was found serves; if not it is made anew.
    """
    folder = cache_folder()
    path = None if folder is None else folder / name
    if path is not None and os.path.lexists(path):
        try:
            found = load(path)
            if is_enough(found):
                return found
        except UserError as error:
            report(f"made anew: {error}")
    value = make("kept nowhere, as there is no home folder" if path is None else f"kept in {path}")
    if path is not None:
        try:
            save(path, value)
        except UserError as error:
            report(f"not kept for the next time: {error}")
    return value
