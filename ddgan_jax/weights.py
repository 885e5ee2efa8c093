"""A network's parameters as named arrays, and as the bytes of a safetensors file.

    "down_0_block_0/conv_0/kernel" -> float32 or bfloat16 (3, 3, 16, 16)

The same parameters give the same bytes: arrays lie in the order of their names, and a header with a
single entry leaves no order to chance.
"""

from collections.abc import Iterable, Mapping

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from ddgan_jax.errors import UserError
from ddgan_jax.types import Params

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_DTYPES_THERE = {"F32": DTYPES["float32"], "BF16": DTYPES["bfloat16"]}


def named(params: Params) -> dict[str, np.ndarray]:
    """The arrays of a nested dict by their path, "a/b/kernel", in the order of the names."""
    leaves = jax.tree.leaves_with_path(params)
    arrays = {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}
    return dict(sorted(arrays.items()))


def nested(arrays: Mapping[str, np.ndarray]) -> Params:
    """The inverse of `named`."""
    params: Params = {}
    for name, array in arrays.items():
        *modules, leaf = name.split("/")
        node = params
        for module in modules:
            node = node.setdefault(module, {})
        node[leaf] = array
    return params


def cast(params: Params, dtype: str) -> Params:
    """The parameters on the host as "float32" or "bfloat16", rounded to nearest."""
    return jax.tree.map(lambda a: np.asarray(a).astype(DTYPES[dtype]), params)


def dtype_of(params: Params) -> str:
    """ "float32" or "bfloat16"; parameters are of one kind."""
    return str(jax.tree.leaves(params)[0].dtype)


def to_safetensors(params: Params) -> bytes:
    """The bytes of a safetensors file with the arrays by their names."""
    arrays = {name: np.ascontiguousarray(array) for name, array in named(params).items()}
    return safetensors.numpy.save(arrays, metadata={"format": "ddgan_jax"})


def from_safetensors(content: bytes, source: str) -> Params:
    """The inverse of `to_safetensors`. source: for the message of the UserError it may raise."""
    try:
        arrays = {
            name: np.frombuffer(entry["data"], _DTYPES_THERE[entry["dtype"]]).reshape(
                entry["shape"]
            )
            for name, entry in safetensors.deserialize(content)
        }
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{source} is not a whole safetensors file ({error})") from error
    return nested(arrays)


def check_shapes(params: Params, template: Params, source: str) -> None:
    """Raises UserError naming the arrays that the network of `template` lacks, or wants."""
    there = {name: array.shape for name, array in named(params).items()}
    wanted = {name: leaf.shape for name, leaf in named(template).items()}
    wrong = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
    if wrong:
        raise UserError(f"{source} is of another network than its config: {_listed(wrong)} differ")


def _listed(names: Iterable[str]) -> str:
    first, *rest = names
    return f"{first} and {len(rest)} more" if rest else first
