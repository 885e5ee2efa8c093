"""The golden files of tests/golden: numbers that the reference implementation computed.

Weights and inputs are not stored; rule_fill.py makes them from the case's seed and names. See
tests/golden/README.md.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddgan_jax import build
from ddgan_jax.config import diffused_shape
from ddgan_jax.interop import nvlabs, wavediff_options
from tests.golden import rule_fill

FOLDER = Path(__file__).parent / "golden"


def _shapes(folder: Path) -> dict[str, Any]:
    """Case -> network -> official name of a parameter -> its shape."""
    return json.loads((folder / "state_dict_shapes.json").read_text())


SHAPES = _shapes(FOLDER)


class Program(NamedTuple):
    """A published program: its options as our config, those that its cases do not state, shapes."""

    config_from_args: Callable
    base: Mapping[str, Any]
    shapes: Mapping[str, Any]


# By the folder of the cases.
PROGRAMS = {
    "": Program(nvlabs.config_from_args, {}, SHAPES),
    "wavediff": Program(
        wavediff_options.config_from_args,
        {
            "image_size": 32,
            "current_resolution": 16,
            "num_channels_dae": 16,
            "n_mlp": 2,
            "ch_mult": (1, 2),
            "num_res_blocks": 1,
            "attn_resolutions": (8,),
            "nz": 8,
            "z_emb_dim": 16,
            "t_emb_dim": 16,
            "ngf": 4,
            "net_type": "wavelet",
            "num_disc_layers": 4,
            # Cases of the generator alone have none, and this one suits all sizes.
            "discriminator": "small",
        },
        _shapes(FOLDER / "wavediff"),
    ),
}


class Case(NamedTuple):
    """One golden file: its description and its arrays."""

    name: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    program: Program = PROGRAMS[""]

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
            for name, shape in self.program.shapes[self.name][network].items()
        }

    def config(self):
        """Our config of the case."""
        m = self.meta
        args = {**self.program.base, **m.get("config", {})}
        if "which" in m:  # the discriminator cases
            args |= {"num_channels": m["nc"] // 2, "discriminator": m["which"]}
        if "resolution" in m:  # of the bands
            args |= {"current_resolution": m["resolution"], "image_size": 2 * m["resolution"]}
        own = ("ngf", "t_emb_dim", "image_size", "num_disc_layers", "discriminator", "rec_loss")
        return self.program.config_from_args(args | {name: m[name] for name in own if name in m})

    def image_shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of the case's images."""
        return (self.meta["batch"], *build.image_shape(self.config()))

    def diffused_shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of what the case's networks see: of images, or of their bands."""
        return (self.meta["batch"], *diffused_shape(self.config()))


def load(name: str) -> Case:
    """The golden case of this file name, without its suffix, in its folder, such as "wavediff/"."""
    with np.load(FOLDER / f"{name}.npz") as file:
        # Times as our programs take them; without 64-bit types JAX would warn of the others.
        arrays = {k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in file.items()}
    folder, _, name = name.rpartition("/")
    program = PROGRAMS.get(folder, PROGRAMS[""])
    return Case(name, json.loads(str(arrays.pop("meta"))), arrays, program)


def names(prefix: str) -> list[str]:
    """All cases whose file name starts with one of the letters in `prefix`."""
    found = sorted(p.stem for p in FOLDER.glob("*.npz"))
    return [name for name in found if name[0] in prefix and name[1].isdigit()]


def wavediff_names(prefix: str) -> list[str]:
    """All cases of WaveDiff whose file name starts so."""
    return sorted(f"wavediff/{p.stem}" for p in FOLDER.glob(f"wavediff/{prefix}*.npz"))


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


def strided(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The pixels of images (N, C, H, W) that the reference's file has kept: every n-th."""
    stride = images.shape[-1] // reference.shape[-1]
    return images[..., ::stride, ::stride]


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
