"""Name a network's parameters in files, as in "down_0_block_0/conv_0/kernel".

A network has its parameters in nested dicts, a file has them by name. These two functions alone go
from one to the other.
"""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from ddgan_jax.state import Params

SEPARATOR = "/"


def named(params: Params) -> dict[str, Any]:
    """Return the arrays of nested dicts by their path, in the order of the names.

    Leaves may be anything, such as shapes. Raises ValueError for a module whose name holds the
    separator, since its parameters could be taken for those of another module.
    """
    # Paths as tuples first, since joined names would hide a separator inside of one.
    paths = traverse_util.flatten_dict(params)
    for path in paths:
        if any(SEPARATOR in part for part in path):
            raise ValueError(f"the name of a module holds {SEPARATOR!r}: {path}")
    # Files do not depend on the order in which a network was built.
    return dict(sorted(traverse_util.flatten_dict(params, sep=SEPARATOR).items()))


def nested(arrays: Mapping[str, Any]) -> Params:
    """Return the nested dicts of arrays by name: the inverse of `named`."""
    return traverse_util.unflatten_dict(dict(arrays), sep=SEPARATOR)
