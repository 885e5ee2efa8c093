"""Keep in the cache folder what takes long to make: classifiers and statistics of data sets."""

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
    """Return the value that the cache folder holds under a name, or make it and put it there.

    A cache is a convenience and never an error. A damaged file is made anew, and a value that
    cannot be written (no home folder, no rights, a full disk) is used all the same; `report` takes
    a line about either. Processes that ask at the same time each make the value, and write equal
    files whole.

    Args:
      name: The file's path inside the cache folder.
      load: Reads a file. Raises UserError for one that cannot be used.
      make: Makes the value. Its argument says in words where the value will be kept.
      save: Writes a file. Raises UserError if it cannot be written.
      is_enough: Tells whether a value from a file serves; otherwise it is made anew.
      report: Takes messages, a line each.
    """
    folder = cache_folder()
    path = None if folder is None else folder / name
    # lexists, so that a broken link is reported as a damaged file and not silently written through.
    if path is not None and os.path.lexists(path):
        try:
            found = load(path)
            if is_enough(found):
                return found
        except UserError as error:
            report(f"made anew: {error}")
    # `make` hears the place first, so that people read why they wait and that it happens once.
    value = make("kept nowhere, as there is no home folder" if path is None else f"kept in {path}")
    if path is not None:
        try:
            save(path, value)
        except UserError as error:
            report(f"not kept for the next time: {error}")
    return value
