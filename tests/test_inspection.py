"""FLOPs and memory from shapes alone."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ddgan_jax import build
from ddgan_jax.config import base_config
from ddgan_jax.config.files import from_json, leaves, load_config
from ddgan_jax.errors import UserError
from ddgan_jax.inspection import costs, memory, page
from ddgan_jax.models.flops import count_flops
from ddgan_jax.state import num_parameters

pytestmark = pytest.mark.quick

CONFIGS = Path(__file__).parents[1] / "configs"


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def conv(x, kernel, **options):
    return lax.conv_general_dilated(
        x, kernel, padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


A, B = array(3, 5), array(5, 7)
MATMUL = 2 * 3 * 5 * 7
X, KERNEL = array(2, 8, 6, 4), array(3, 3, 4, 10)
CONV = 2 * (2 * 8 * 6 * 10) * (3 * 3 * 4)


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (lambda a, b: a @ b, (A, B), MATMUL),
        (
            lambda a, b: jnp.einsum("bij,bjk->bik", a, b),
            (array(4, 3, 5), array(4, 5, 7)),
            4 * MATMUL,
        ),
        (lambda a, b: jnp.sin(a) + a * 3, (A, B), 0),  # what is elementwise does not count
        (lambda x, k: conv(x, k, window_strides=(1, 1)), (X, KERNEL), CONV),
        (lambda x, k: conv(x, k, window_strides=(2, 2)), (X, KERNEL), CONV // 4),
        (
            lambda x, k: conv(x, k, window_strides=(1, 1), feature_group_count=2),
            (X, array(3, 3, 2, 10)),
            CONV // 2,
        ),
        (
            lambda a, b: jax.jit(jnp.matmul)(a, b) + jax.checkpoint(jnp.matmul)(a, b),
            (A, B),
            2 * MATMUL,
        ),
        # The forward pass, and a product for each argument that is differentiated.
        (lambda a, b: jax.grad(lambda a: ((a @ b) ** 2).sum())(a), (A, B), 2 * MATMUL),
        (
            lambda a, b: jax.grad(lambda a, b: ((a @ b) ** 2).sum(), (0, 1))(a, b),
            (A, B),
            3 * MATMUL,
        ),
        (
            lambda x, k: jax.grad(lambda k: (conv(x, k, window_strides=(1, 1)) ** 2).sum())(k),
            (X, KERNEL),
            2 * CONV,
        ),
        (
            lambda a, b: lax.scan(lambda c, _: (c, a @ b), 0.0, None, length=11)[1],
            (A, B),
            11 * MATMUL,
        ),
        (
            lambda a, b: lax.cond(a.sum() > 0, lambda: a @ b, lambda: (a @ b) @ (b.T @ b)),
            (A, B),
            MATMUL + 2 * 7 * 5 * 7 + 2 * 3 * 7 * 7,
        ),
    ],
)
def test_known_counts(function, args, expected):
    assert count_flops(function, *args) == expected


@pytest.mark.parametrize(
    ("name", "generator", "discriminator"),
    [
        ("cifar10", 14_067_550_208, 2_947_105_792),
        ("lsun_church256", 140_828_788_736, 151_089_071_104),
    ],
)
def test_published_networks(name, generator, discriminator):
    """Counts of the reference, where FIR filters are left out: here they are no convolutions."""
    config = load_config(str(CONFIGS / f"{name}_ddgan.py"))
    expected = {"generator": generator, "discriminator": discriminator}
    assert costs.network_flops(config) == expected


@pytest.fixture(scope="module")
def digits():
    config = load_config(str(CONFIGS / "digits_ddgan.py:tiny"))
    config.generator.channel_multipliers = (1,)  # half as long to trace
    config.generator.attention_resolutions = ()
    return config, jax.eval_shape(lambda: build.initial_state(config, jax.random.key(0)))


def test_train_step_flops(digits):
    """A step is so many forward passes: every product is done once forward and twice backward.

    Discriminator step: G forward; D on real and on fake images, forward and backward. Generator
    step: G forward and backward; D forward and back to its input, which is one product of two.
    R1 adds D's gradient with respect to its input and the backward pass through that and the
    forward pass: at most 1 + 2 + 2 forward passes more. First layers are differentiated once less.
    """
    config, _ = digits
    forward = costs.network_flops(config)
    plain, with_r1 = (costs.train_step_flops(config, r1=r1) for r1 in (False, True))
    upper = 4 * forward["generator"] + 8 * forward["discriminator"]
    assert 0.9 * upper < plain <= upper
    assert 2 * forward["discriminator"] < with_r1 - plain < 5 * forward["discriminator"]


def shown(config, columns=80, **parts):
    return "\n".join(page.page(config, page.Parts(**parts), columns))


def test_first_page(digits):
    """Networks with their parameters, the words of a summary, and nothing wider than asked."""
    config, state = digits
    for columns in (40, 80, 100):
        text = shown(config, columns)
        assert max(map(len, text.splitlines())) <= columns
    text = shown(config)
    for role in page.ROLES:
        count = f"{num_parameters(getattr(state, role).params):,} parameters"
        assert re.search(rf"^{role} +{config[role].name}, {count}$", text, re.MULTILINE)
    for words in ("DDGAN", "digits, split train", "8 x 8 pixels, gray", "2 steps of 8 images"):
        assert words in text


def test_siddm_is_called_so():
    config = load_config("digits_siddm:tiny")
    first = shown(config).splitlines()[0]
    assert first.startswith("method") and "SIDDM" in first and config.data.num_classes == 10
    assert "10 classes" in shown(config)


def test_parts_that_are_asked_for(digits, monkeypatch):
    """A line for each module, and sums of what a line says."""
    config, state = digits
    monkeypatch.setattr(costs, "train_step_flops", lambda config, r1: 8.76e9 if r1 else 5.43e9)
    text = shown(config, modules=True, costs=True, memory=True)
    assert f"  {'train step':<28}{'5.43':>14}\n  {'train step with R1':<28}{'8.76':>14}\n" in text
    for network in (state.generator, state.discriminator):
        for module, subtree in network.params.items():
            arrays = len(jax.tree.leaves(subtree))
            row = rf"^\| {module} +\| {arrays} +\| {num_parameters(subtree):,} +\|$"
            assert re.search(row, text, re.MULTILINE), row
    lines = {
        line[2:30].strip(): float(line[30:].replace(",", "")) for line in text.splitlines()[-3:]
    }
    # Float32: parameters, their average and Adam's two moments; and parameters with moments.
    generator, discriminator = (
        num_parameters(network.params) * 4 / 2**20
        for network in (state.generator, state.discriminator)
    )
    np.testing.assert_allclose(
        lines["state: parameters, EMA, Adam"], 4 * generator + 3 * discriminator, atol=0.06
    )
    np.testing.assert_allclose(
        lines["gradients of one network"], max(generator, discriminator), atol=0.06
    )
    assert lines["activations, for each image"] > 0
    tree = json.loads(page.as_json(config, page.Parts(costs=True)))
    assert tree["flops_per_image"]["train step"] == 5.43e9 and "bytes_per_device" not in tree
    for role in page.ROLES:
        network = tree["networks"][role]
        assert sum(network["modules"].values()) == network["parameters"]
    assert from_json(json.dumps(tree["config"])) == config


def test_fields_that_were_changed_are_explained(digits):
    """Those alone, each with its value, its unit, its default and its sentence; or all."""
    config, _ = digits
    text = shown(config)
    sentence = "      Images per step, over all devices.\n"
    assert f"  train.batch_size = 8 (images, base 256)\n{sentence}" in text
    assert "  generator.channel_multipliers = (1,) (base (1, 2, 2, 2))\n" in text
    explained, every = (
        set(re.findall(r"^  (\w+\.\w+) = ", page, re.MULTILINE))
        for page in (text, shown(config, all_fields=True))
    )
    defaults = dict(leaves(base_config()))
    assert explained == {path for path, value in leaves(config) if value != defaults[path]}
    assert explained == set(json.loads(page.as_json(config, page.Parts()))["changed"])
    assert every == {path for path, _ in leaves(config)}


def test_a_config_is_compared_with_the_given_base(digits):
    """With itself it has no differences, and with another those of their fields alone."""
    config, _ = digits
    assert shown(config, base=config).endswith("fields that differ from the given base")
    other = config.copy_and_resolve_references()
    other.diffusion.num_timesteps, other.train.seed = 8, 1
    tree = json.loads(page.as_json(other, page.Parts(base=config)))
    defaults = {name: field["default"] for name, field in tree["changed"].items()}
    was = {"diffusion.num_timesteps": config.diffusion.num_timesteps, "train.seed": 0}
    assert defaults == was
    # A base with other networks has not all of the fields.
    assert "generator.head_channels" in shown(load_config("digits_siddm"), base=config)


def test_memory_of_a_device():
    """A state that is divided, gradients, and activations for each image."""
    needed = memory.Memory(state=100, divided=40, gradients=20, activations=3)
    assert needed.of_device(images=5, devices=1) == 100 + 20 + 15
    assert needed.of_device(images=5, devices=8) == 60 + 5 + 20 + 15


def test_activations_grow_with_the_image(digits):
    """Twice the width and height: feature maps take four times the memory, attention sixteen."""
    config, state = digits
    larger = config.copy_and_resolve_references()
    larger.data.image_size = 2 * config.data.image_size
    small, large = (memory.activation_bytes(c, state) for c in (config, larger))
    assert 4 < large / small < 16


def test_config_that_cannot_be_trained_is_refused(digits):
    config = digits[0].copy_and_resolve_references()
    config.data.image_size = 12
    with pytest.raises(UserError, match="data.image_size=12"):
        shown(config)
