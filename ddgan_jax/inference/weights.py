"""Convert a network's parameters to and from the bytes of a safetensors file.

    "down_0_block_0/conv_0/kernel" -> float32 or bfloat16 (3, 3, 16, 16)

The same parameters give the same bytes, since arrays lie in the order of their names, and the
header has a single entry besides, whose order cannot vary.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign
from ddgan_jax.models.parameters import named, nested
from ddgan_jax.state import Params

# Bytes of a header; a network of a thousand arrays has 100,000.
LARGEST_HEADER = 32 * 2**20

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_DTYPES_THERE = {"F32": DTYPES["float32"], "BF16": DTYPES["bfloat16"]}


def cast(params: Params, dtype: str) -> Params:
    """Return the parameters on the host as "float32" or "bfloat16", rounded to nearest."""
    return jax.tree.map(lambda a: np.asarray(a).astype(DTYPES[dtype]), params)


def dtype_name(text: str) -> str:
    """Return the dtype that "f32", "bf16" or its full name means. Raises UserError for another."""
    names = {"f32": "float32", "bf16": "bfloat16", **{name: name for name in DTYPES}}
    if text not in names:
        raise UserError(f"`dtype={shown(text)}` is not f32 or bf16")
    return names[text]


def dtype_of(params: Params) -> str:
    """Return the dtype that all parameters have: "float32" or "bfloat16"."""
    # All parameters have one dtype: `cast` makes it so, and `from_safetensors` refuses others.
    return str(jax.tree.leaves(params)[0].dtype)


def to_safetensors(params: Params) -> bytes:
    """Return the bytes of a safetensors file with the arrays by their names."""
    # safetensors asks for contiguous arrays, which transposed ones are not.
    arrays = {name: np.ascontiguousarray(array) for name, array in named(params).items()}
    return safetensors.numpy.save(arrays, metadata={"format": "ddgan_jax"})


def from_safetensors(content: bytes, template: Params, source: str | os.PathLike) -> Params:
    """Return the parameters in the bytes of a safetensors file: the inverse of `to_safetensors`.

    template: the shapes of the parameters, see `models.abstract_params`. source: the file, for
    messages. Raises UserError for bytes that are no such file, for arrays with other names or
    shapes than in the template, and for numbers that are not finite or of several types.
    """
    with foreign.reading(source, "safetensors file"):
        # The parser would make objects of any header, however long.
        if int.from_bytes(content[:8], "little") > LARGEST_HEADER:
            raise ValueError("its header is too long")
        arrays = {name: _array(entry) for name, entry in safetensors.deserialize(content)}
    there = {name: array.shape for name, array in arrays.items()}
    wanted = {name: leaf.shape for name, leaf in named(template).items()}
    wrong = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
    if wrong:
        raise UserError(
            f"{shown(source, 300)} is of another network than its config: {_listed(wrong)} differ"
        )
    # `dtype_of` reads the type of the first array for all of them.
    if len({array.dtype for array in arrays.values()}) > 1:
        raise UserError(f"{shown(source, 300)} holds numbers of several types")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{shown(source, 300)}: {name} holds numbers that are not finite")
    return nested(arrays)


def _array(entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES_THERE:
        raise ValueError(f"it holds {shown(entry['dtype'])}, and only F32 and BF16 are read")
    return np.frombuffer(entry["data"], _DTYPES_THERE[entry["dtype"]]).reshape(entry["shape"])


def _listed(names: Iterable[str]) -> str:
    first, *rest = (shown(name) for name in names)
    return f"{first} and {len(rest)} more" if rest else first
