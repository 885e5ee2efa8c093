"""Read state dicts of PyTorch as plain arrays by name, and check their entries."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ddgan_jax.errors import UserError, shown

StateDict = Mapping[str, np.ndarray]

# Wrappers put these before the names of the modules inside: DataParallel and torch.compile.
_WRAPPERS = ("module", "_orig_mod")
# Entries that a message names; the rest are counted.
MOST_NAMED = 8


def plain_arrays(state_dict: Any, what: str) -> dict[str, np.ndarray]:
    """Return the entries under the names that they have without wrappers around their modules.

    what: The expected network, for messages. Values keep their dtype. Raises UserError unless all
    entries are arrays of real numbers that are finite in float32, and all names are strings.
    """
    if not isinstance(state_dict, Mapping):
        raise UserError(f"this is not a state dict of {what}: it has no entries by name")
    arrays: dict[str, np.ndarray] = {}
    for name, value in state_dict.items():
        if not isinstance(name, str):
            raise UserError(f"this is not a state dict of {what}: a name is {shown(repr(name))}")
        plain = plain_name(name)
        # With and without a wrapper: which of the two the network should have is not known.
        if plain in arrays:
            raise UserError(f"this is not a state dict of {what}: {shown(plain)} is there twice")
        arrays[plain] = _checked(value, plain)
    return arrays


def plain_name(name: str) -> str:
    """Return the name of an entry without the parts that wrappers add, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def check_entries(
    given: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    what: str,
    *,
    may_be_unused: Callable[[str], bool] = lambda name: False,
) -> None:
    """Refuse entries that are missing, unused, or of another shape than wanted.

    wanted: Shapes by name. what: The expected network, for the message. may_be_unused: Returns
    whether a further entry is no mistake. Raises UserError that names the first problems and counts
    the rest.
    """
    # Missing entries first: they tell most about which network this is.
    problems = [f"missing {name}" for name in wanted if name not in given]
    problems += [f"unused {n}" for n in given if n not in wanted and not may_be_unused(n)]
    problems += [
        f"{name} has shape {given[name].shape}, not {shape}"
        for name, shape in wanted.items()
        if name in given and given[name].shape != shape
    ]
    if problems:
        # A wrong network has many problems, of which the first few tell enough.
        more = len(problems) - MOST_NAMED
        named = "; ".join(shown(problem, 200) for problem in problems[:MOST_NAMED])
        rest = f"; and {more} more" if more > 0 else ""
        raise UserError(f"this state dict is not {what}: {named}{rest}")


def _checked(value: Any, name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        # An `Unread` carries words that say what stands there.
        text = getattr(value, "text", f"a {type(value).__name__}")
        raise UserError(f"entry {shown(name)} is {text}, and only tensors of numbers are read")
    if value.dtype.kind not in "fiu":
        raise UserError(f"entry {shown(name)} is of {value.dtype}, which no network has")
    # Numbers that only float64 holds would become infinite when the network computes with them.
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.asarray(value, np.float32)).all()
    if not finite:
        raise UserError(f"entry {shown(name)} holds numbers that are not finite in float32")
    return value
