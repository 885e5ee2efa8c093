"""The golden files of tests/golden: numbers that the reference implementation computed.

Weights and inputs are not stored; rule_fill.py makes them from the case's seed and names. See
tests/golden/README.md.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddgan_jax.interop import nvlabs
from tests.golden import rule_fill

FOLDER = Path(__file__).parent / "golden"
SHAPES = json.loads((FOLDER / "state_dict_shapes.json").read_text())


class Case(NamedTuple):
    """One golden file: its description and its arrays."""

    name: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def normal(self, name: str, shape: tuple[int, ...], dtype=np.float64) -> np.ndarray:
        """A drawn input in channels-last order; shape is (N, H, W, C) or any other rank."""
        return self._input(rule_fill.normal, name, shape, dtype)

    def uniform(self, name: str, shape: tuple[int, ...], dtype=np.float64) -> np.ndarray:
        """As `normal`, from U(-1, 1)."""
        return self._input(rule_fill.uniform, name, shape, dtype)

    def _input(self, draw, name, shape, dtype):
        if len(shape) == 4:
            n, h, w, c = shape
            return draw(self.meta["seed"], name, (n, c, h, w)).transpose(0, 2, 3, 1).astype(dtype)
        return draw(self.meta["seed"], name, shape).astype(dtype)

    def state_dict(self, network: str, dtype=np.float64) -> dict[str, np.ndarray]:
        """The rule-filled official state dict of "generator" or "discriminator"."""
        return {
            name: rule_fill.weight(self.meta["seed"], name, tuple(shape)).astype(dtype)
            for name, shape in SHAPES[self.name][network].items()
        }

    def config(self):
        """Our config of the case."""
        args = dict(self.meta.get("config", {}))
        if "which" in self.meta:  # the discriminator cases
            m = self.meta
            args |= {"ngf": m["ngf"], "t_emb_dim": m["t_emb_dim"], "image_size": m["image_size"]}
            args |= {"num_channels": m["nc"] // 2, "discriminator": m["which"]}
        if "discriminator" in self.meta:
            args["discriminator"] = self.meta["discriminator"]
        return nvlabs.config_from_args(args)

    def image_shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of the case's images."""
        data = self.config().data
        return (self.meta["batch"], data.image_size, data.image_size, data.channels)


def load(name: str) -> Case:
    """The golden case of this file name, without its suffix."""
    with np.load(FOLDER / f"{name}.npz") as file:
        # Times as our programs take them; without 64-bit types JAX would warn of the others.
        arrays = {k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in file.items()}
    return Case(name, json.loads(str(arrays.pop("meta"))), arrays)


def names(prefix: str) -> list[str]:
    """All cases whose file name starts with one of the letters in `prefix`."""
    found = sorted(p.stem for p in FOLDER.glob("*.npz"))
    return [name for name in found if name[0] in prefix and name[1].isdigit()]


def in_both_precisions(
    function: Callable, *inputs: Any, float32: bool = True
) -> Iterator[tuple[type, Any]]:
    """(dtype, function's compiled result in it as numpy) for float64 and, if so wanted, float32.

    inputs: trees of float64 arrays, rounded to float32 for the second; integers stay.
    """
    for dtype in (np.float64, np.float32) if float32 else (np.float64,):
        with jax.enable_x64(dtype == np.float64), jax.default_matmul_precision("highest"):
            yield dtype, jax.tree.map(np.asarray, jax.jit(function)(*_cast(inputs, dtype)))


def _cast(tree: Any, dtype: type) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float64 else x, tree)


def channels_first(x: np.ndarray) -> np.ndarray:
    """(N, H, W, C) -> (N, C, H, W)."""
    return np.asarray(x).transpose(0, 3, 1, 2)


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference over the largest entry of the reference."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / max(np.abs(reference).max(), np.finfo(float).tiny)


def official_layout(name: str, value: np.ndarray) -> np.ndarray:
    """One of our parameters in the layout of the official entry of that name, but for 1x1 axes."""
    value = np.asarray(value)
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 and name.endswith(".weight") else value


def tensor_statistics(value: np.ndarray) -> np.ndarray:
    """[sum, sum of absolute values, first five values], as the golden tables have them."""
    flat = np.asarray(value, np.float64).ravel()
    first = np.zeros(5)
    first[: min(5, flat.size)] = flat[:5]
    return np.array([flat.sum(), np.abs(flat).sum(), *first])
