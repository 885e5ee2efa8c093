"""Reading files of torch.save without running what may be hidden in them.

Such a file is a pickle, a program that builds objects. PyTorch's own restricted reader builds
tensors and plain containers alone, and here argparse.Namespace, in which training scripts keep
their options; anything else is refused before it runs.
"""

import argparse
import io
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from ddgan_jax.errors import UserError

_REFUSED = re.compile(r"(?:GLOBAL|Unsupported class|Unsupported global:?) +`?([\w.]+)")
# What torch.load raises on damage, depending on where it lies.
_BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read(path: str | os.PathLike) -> Any:
    """The content of a file of torch.save, see `load`. Raises UserError also if it is missing."""
    try:
        content = epath.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return load(content, path)


def load(content: bytes, path: str | os.PathLike) -> Any:
    """What torch.save wrote as these bytes: tensors as numpy arrays, a Namespace as a dict.

    Arrays own their memory, also those that shared it in the file; bfloat16 becomes float32. path:
    for the message of the UserError that is raised where PyTorch is not installed, and for bytes
    that are damaged, or hold anything but numbers in plain containers.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f'reading {path} needs PyTorch, nothing else does: pip install "ddgan-jax[torch]"'
        ) from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of file versions; what cannot be read is an error
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return _as_numpy(loaded, torch)
    except _BROKEN as error:
        refused = _REFUSED.search(str(error))
        if refused:
            raise UserError(
                f"{path} is refused: it holds code, {refused[1]}, and was not run"
            ) from error
        raise UserError(f"{path} is truncated or damaged, or no file of torch.save") from error


def _as_numpy(node: Any, torch: Any) -> Any:
    if isinstance(node, torch.Tensor):
        node = node.detach()
        return np.array((node.float() if node.dtype == torch.bfloat16 else node).numpy())
    if isinstance(node, argparse.Namespace):
        node = vars(node)
    if isinstance(node, Mapping):
        return {key: _as_numpy(value, torch) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_as_numpy(value, torch) for value in node)
    return node
