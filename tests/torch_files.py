"""Write files as torch.save does, without PyTorch: checkpoints that no program has saved."""

import collections
import io
import os
import pickle
import sys
import types
import zipfile
from typing import Any, NamedTuple
from unittest import mock

import numpy as np


class _Storage(NamedTuple):
    """The bytes of one tensor, which lie beside the pickle."""

    key: str
    array: np.ndarray


def save(value: Any, path: str | os.PathLike) -> None:
    """Write containers, numbers, texts, namespaces and float32 arrays, these as tensors."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    # A pickle holds the names of these two, which it looks up when it is written.
    torch.FloatStorage = _named("FloatStorage", "torch")
    utils._rebuild_tensor_v2 = _named("_rebuild_tensor_v2", "torch._utils")
    torch._utils = utils
    content = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        pickler = _Pickler(content, torch)
        pickler.dump(value)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", content.getvalue())
        archive.writestr("archive/byteorder", b"little")
        for storage in pickler.storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
        archive.writestr("archive/version", b"3\n")


def _named(name: str, module: str) -> type:
    """Return an object that a pickle holds by its name, and that is never called."""
    return type(name, (), {"__module__": module})


class _Pickler(pickle.Pickler):
    """A pickler to which arrays are tensors of PyTorch, each with a storage of its own."""

    def __init__(self, file: io.BytesIO, torch: Any) -> None:
        super().__init__(file, protocol=2)
        self.torch = torch
        self.storages: list[_Storage] = []

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, _Storage):
            return ("storage", self.torch.FloatStorage, obj.key, "cpu", obj.array.size)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, np.ndarray):
            return NotImplemented
        array = np.array(obj, "<f4", order="C")
        self.storages.append(_Storage(str(len(self.storages)), array))
        strides = tuple(stride // array.itemsize for stride in array.strides)
        tensor = (self.storages[-1], 0, array.shape, strides, False, collections.OrderedDict())
        return self.torch._utils._rebuild_tensor_v2, tensor
