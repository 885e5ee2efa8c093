"""WaveDiff's transforms and layers, one by one, against numbers of the reference.

All of them run in one compiled program per precision; each array of the file is one test.
"""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import haar, models
from ddgan_jax.haar import Details
from ddgan_jax.models import ncsnpp_blocks, wavelet
from tests import golden_cases as golden
from tests.test_golden_primitives import BLOCK, FIR, filled

pytestmark = pytest.mark.quick

CASE = golden.load("wavediff/wp01_primitives")
SPACES = {"matrix": haar.Bands("lh_hl"), "pw": haar.Bands("hl_lh")}
WAVELET_BLOCK = BLOCK | {"detail_convs": "convH_0"}


class Pyramid(wavelet.WaveletNCSNpp, kw_only=True):
    """One level of the generator's input pyramid alone."""

    features: int

    @nn.compact
    def __call__(self, pyramid):
        return self._downsample_pyramid(pyramid, self.features, "conv")


def pyramid(features):
    generator = models.build_generator(golden.load("wavediff/wg01_default").config())
    fields = [field.name for field in dataclasses.fields(generator) if field.init]
    own = {name: getattr(generator, name) for name in fields if name not in ("parent", "name")}
    return Pyramid(**own, features=features)


def inputs(case):
    """The case's arrays by their names; y12 are bands of the small size, hi and v9 of the large."""
    m = case.meta
    h, w, c = m["h"], m["w"], m["C"]
    shapes = {
        "x": (2, h, w, c),
        **{f"y{i}": (2, h // 2, w // 2, c) for i in range(4)},
        "y12": (2, h // 2, w // 2, 12),
        "style": (2, m["zd"]),
        "temb": (2, m["td"]),
        **{f"hi{i}": (2, h, w, m["hi_in_ch"]) for i in range(3)},
        "v9": (2, h, w, 3 * c),
    }
    arrays = {name: case.normal(name, shape) for name, shape in shapes.items()}
    return arrays | {"img": case.uniform("img", (2, h, w, 3))}


def bands(i):
    return Details(i["y1"], i["y2"], i["y3"])


def transforms():
    """Name of the golden array -> function of the inputs."""

    def in_order(space):
        # The bands of features, in the order that images have.
        return lambda i: jnp.split(2 * space.encode(i["x"]), 4, axis=-1)

    def joined(space):
        return lambda i: space.decode(jnp.concatenate([i[f"y{n}"] for n in range(4)], axis=-1) / 2)

    def written(space):
        # From -1 .. 1 to the range of the reference's files.
        return lambda i: (jnp.clip(space.decode(i["y12"]), -1, 1) + 1) / 2

    matrix, pw = SPACES["matrix"], SPACES["pw"]
    table = {
        "idwt": lambda i: haar.join(i["y0"], bands(i)),
        "idwt_pw": joined(pw),
        "patchify2": lambda i: wavelet.to_patches(i["x"], 2),
        "unpatchify2": lambda i: wavelet.from_patches(i["x"], 2),
    }
    for number, name in enumerate(("LL", "LH", "HL", "HH")):
        table[f"dwt.{name}"] = lambda i, n=number: in_order(matrix)(i)[n]
        table[f"dwt_pw.b{number}"] = lambda i, n=number: in_order(pw)(i)[n]
    for name, space in SPACES.items():
        table[f"encode_{name}"] = lambda i, space=space: space.encode(i["img"])
        table[f"decode_{name}"] = written(space)
    return table


def blocks(case):
    """Name of a module -> the module, its parts, what it is applied to, given the inputs."""
    wide = case.meta["C2"]

    def with_context(*arrays):
        # Our blocks are given the time after its activation.
        return lambda i: (*(a(i) for a in arrays), nn.silu(i["temb"]), i["style"], None)

    def x(i):
        return i["x"]

    def details(i):
        return Details(i["hi0"], i["hi1"], i["hi2"])

    def same(features):
        return ncsnpp_blocks.ResBlock(features, "biggan", 0.0, True, None, True, FIR)

    c = case.meta["C"]
    table = {
        "w_same": (same(c), BLOCK, with_context(x)),
        "w_wide": (same(wide), BLOCK, with_context(x)),
        "w_downsample": (pyramid(wide), {"conv": ""}, lambda i: (x(i),)),
        "conv_groups3": (
            wavelet.BandConvs(wide, None),
            {},
            lambda i: (Details(*jnp.split(i["v9"], 3, axis=-1)),),
        ),
    }
    for suffix, rescale in {"": True, "_noscale": False}.items():
        down, up = (
            block(c, "biggan", 0.0, rescale, None)
            for block in (wavelet.WaveletDown, wavelet.WaveletUp)
        )
        table[f"w_down{suffix}"] = (down, WAVELET_BLOCK, with_context(x))
        table[f"w_up{suffix}"] = (up, WAVELET_BLOCK, with_context(x, details))
    return table


def by_array(outputs):
    """The outputs of `blocks` under the names of the file's arrays."""
    named = {}
    for name, out in outputs.items():
        if name.startswith("w_down") and isinstance(out, tuple):
            out, details = out
            named[f"{name}.out"] = out
            named |= {f"{name}.{band.upper()}": getattr(details, band) for band in details._fields}
        else:
            named[name] = jnp.concatenate(out, axis=-1) if isinstance(out, Details) else out
    return named


def results_of(case):
    """Every primitive in float64 and float32, each by one compiled program."""
    table, arrays = blocks(case), inputs(case)
    params = {
        name: filled(name, module, parts, *arguments(arrays), seed=case.meta["seed"])
        for name, (module, parts, arguments) in table.items()
    }
    # The reference's array is that of the convolution alone; ours counts the bias twice.
    params["conv_groups3"]["bias"] = params["conv_groups3"]["bias"] / 2

    def everything(params, arrays):
        outputs = {
            name: module.apply({"params": params[name]}, *arguments(arrays))
            for name, (module, _, arguments) in table.items()
        }
        return {name: f(arrays) for name, f in transforms().items()} | by_array(outputs)

    return dict(golden.in_both_precisions(everything, params, arrays))


@functools.cache
def results():
    return results_of(CASE)


def test_every_array_is_covered():
    assert set(results()[np.float64]) == set(CASE.arrays)


@pytest.mark.parametrize("name", CASE.arrays)
def test_primitive(name):
    reference, error = CASE.arrays[name], CASE.meta["f32_max_abs_dev"][name]
    for dtype, outputs in results().items():
        ours = golden.channels_first(outputs[name])
        assert ours.dtype == dtype
        if dtype == np.float64:
            assert golden.relative_error(ours, reference) < 1e-9
        else:
            np.testing.assert_allclose(ours, reference, rtol=0, atol=10 * error)
