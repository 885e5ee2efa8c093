"""Sizes of WaveDiff's networks: what is refused, and the published numbers of parameters."""

import math
import re

import jax
import numpy as np
import pytest

from ddgan_jax import models
from ddgan_jax.config.shapes import check_levels, input_shrinks
from ddgan_jax.errors import UserError
from ddgan_jax.inspection import costs
from ddgan_jax.interop import nvlabs, wavediff_options
from tests.test_wavelet import config_with, generator_inputs

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("size", "levels", "middle", "patch"),
    [
        *((4, levels, middle, 1) for levels in (1, 2, 3) for middle in (True, False)),
        *((6, levels, middle, 1) for levels in (1, 2) for middle in (True, False)),
        *((8, levels, True, 2) for levels in (2, 3)),
        *((8, levels, False, 2) for levels in (3, 4)),
        (6, 1, False, 4),
    ],
)
def test_exactly_the_sizes_that_cannot_be_halved_are_refused(size, levels, middle, patch):
    """size: of the bands."""
    config = config_with(
        data__image_size=2 * size,
        generator__channel_multipliers=(1,) * levels,
        generator__wavelet_middle=middle,
        generator__patch_size=patch,
    )
    generator = models.build_generator(config)
    shrinks = input_shrinks(config, "generator")
    try:
        jax.eval_shape(generator.init, jax.random.key(0), *generator_inputs(config))
    except (TypeError, ValueError):
        with pytest.raises(UserError, match="cannot be halved") as refused:
            check_levels(config.generator, 2 * size, shrinks=shrinks)
        works = int(re.search(r"multiple of (\d+)", str(refused.value))[1])
        check_levels(config.generator, works, shrinks=shrinks)
    else:
        check_levels(config.generator, 2 * size, shrinks=shrinks)


# ---- published sizes

# Parameters and tensors of both networks.
PUBLISHED = {
    "cifar10": ((33_370_124, 272), (7_630_593, 31)),
    "stl10": ((55_585_292, 390), (12_743_937, 38)),
    "celebahq256": ((31_485_452, 474), (22_626_177, 45)),
    "celebahq512": ((44_853_004, 558), (27_739_521, 52)),
    "celebahq1024": ((44_186_416, 528), (27_739_521, 52)),
}
# FLOPs of both without the FIR filters, which are no convolutions here.
FLOPS = {
    "cifar10": (3.333e9, 0.699e9),
    "celebahq256": (56.843e9, 37.81e9),
}
# Parameters of the generator at 256 pixels with one part off.
ONE_OFF = {"no_use_freq": 29_492_876, "no_use_residual": 30_358_796}
# Parameters of modules by their position, of those that DDGAN's networks do not have.
MODULES = {
    "stl10": {
        2: 13_952, 6: 55_424, 12: 1_179_904, 16: 2_359_552, 25: 3_410_688, 29: 3_410_688,
        34: 2_525_952, 39: 13_836,
    },
    "celebahq256": {
        2: 6_976, 5: 160_256, 6: 27_712, 10: 295_040, 13: 476_160, 14: 589_952, 20: 589_952,
        23: 1_509_120, 25: 1_509_120, 29: 2_460_416, 34: 918_912, 38: 918_912, 42: 697_728,
        46: 128, 47: 6_924,
    },
    "celebahq512": {
        2: 6_976, 6: 27_712, 10: 147_520, 14: 295_040, 18: 589_952, 24: 1_179_904,
        33: 3_345_152, 38: 2_460_416, 42: 918_912, 46: 697_728, 50: 271_040, 55: 6_924,
    },
    "celebahq1024": {2: 27_712, 6: 110_656, 52: 27_696},
}  # fmt: skip


def sizes(params):
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    return sum(map(math.prod, shapes)), len(shapes)


def published_config(name, **options):
    return wavediff_options.config_from_args(wavediff_options.PUBLISHED[name] | options)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    params = models.abstract_params(published_config(name))
    assert tuple(map(sizes, params)) == PUBLISHED[name]


@pytest.mark.parametrize("name", FLOPS)
def test_published_flops(name):
    """As far as the digits of the reference's count go."""
    ours = costs.network_flops(published_config(name)).values()
    np.testing.assert_allclose(list(ours), FLOPS[name], rtol=8e-4)


@pytest.mark.parametrize("name", MODULES)
def test_published_modules(name):
    config = published_config(name)
    params, names = models.abstract_params(config)[0], nvlabs.generator_names(config)
    ours = {
        int(jax.tree.leaves(names[part])[0].split(".")[1]): sizes(params[part])[0]
        for part in params
        if part != "latent_mapping"
    }
    assert sorted(ours) == list(range(len(ours)))
    assert {position: ours[position] for position in MODULES[name]} == MODULES[name]


@pytest.mark.parametrize("switch", ONE_OFF)
def test_published_sizes_without_a_part(switch):
    config = published_config("celebahq256", **{switch: True})
    assert sizes(models.abstract_params(config)[0])[0] == ONE_OFF[switch]


@pytest.mark.parametrize(
    ("kind", "blocks", "expected"),
    [
        ("small", 3, (7_630_593, 31)),
        ("small", 4, (12_743_937, 38)),
        ("small", 0, (12_743_937, 38)),
        ("large", 3, (12_399_489, 31)),
        ("large", 4, (17_512_833, 38)),
        ("large", 5, (22_626_177, 45)),
        ("large", 0, (27_739_521, 52)),
    ],
)
def test_discriminators_of_fewer_blocks(kind, blocks, expected):
    """Of the first blocks, and with the width of the last one at the end."""
    config = config_with(
        data__image_size=128,
        data__channels=3,
        discriminator__name=kind,
        discriminator__num_blocks=blocks,
    )
    x, t, _ = generator_inputs(config, batch=1)
    init = models.build_discriminator(config).init
    assert sizes(jax.eval_shape(init, jax.random.key(0), x, t, x)["params"]) == expected
