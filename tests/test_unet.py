"""The ADM U-Net: sizes, layout, initial values, labels, recomputation, dropout, precision."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ddgan_jax.errors import UserError
from ddgan_jax.models import layers, unet, unet_blocks

quick = pytest.mark.quick


def tiny_unet(**fields):
    """One level on 8 x 8 images, which attends with two heads."""
    tiny = {
        "out_channels": 3,
        "image_size": 8,
        "base_channels": 32,
        "channel_multipliers": (1,),
        "num_res_blocks": 1,
        "attention_resolutions": (8,),
        "head_channels": 16,
    }
    return unet.UNet(**tiny | fields)


def random_key():
    """Of a generator that compiles in half the time, but whose draws depend on the batch."""
    return jax.random.key(0, impl="rbg")


def inputs(batch, image_size=8, channels=3):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, image_size, image_size, channels)).astype(np.float32)
    return x, np.linspace(100, 1000, batch, dtype=np.float32)


def random_params(network, *arguments, seed=0):
    """Parameters of the sizes that a trained network has: kernels keep variance, scales near 1."""
    template = jax.eval_shape(network.init, jax.random.key(0), *arguments)["params"]
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        assert leaf.dtype == np.float32
        n = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return n / np.float32(math.sqrt(math.prod(leaf.shape[:-1])))
        return 1 + n / 10 if path[-1].key == "scale" else n / 10

    return jax.tree.map_with_path(draw, template)


# ---- sizes and layout


# Image size, base channels, channel multipliers, attention resolutions, classes.
FULL_SIZE = {
    "cifar10": (32, 256, (2, 2, 2), (16, 8), 0),
    "celeba_hq": (256, 192, (1, 1, 2, 3, 4), (32, 16, 8), 0),
    "imagenet64": (64, 256, (1, 2, 3, 4), (32, 16, 8), 1000),
}
ORDERS = {
    "resblock_updown": {"resblock_updown": True},
    "adm": {},
    "imagen": {"updown_order": "imagen"},
}


@functools.cache
def full_size(name, order):
    """From 3 to 3 channels: shapes of the parameters, and of all residual blocks' outputs."""
    image_size, base_channels, multipliers, attention_resolutions, num_classes = FULL_SIZE[name]
    network = unet.UNet(
        out_channels=3,
        image_size=image_size,
        base_channels=base_channels,
        channel_multipliers=multipliers,
        num_res_blocks=2,
        attention_resolutions=attention_resolutions,
        head_channels=64,
        num_classes=num_classes,
        **ORDERS[order],
    )
    x, t = inputs(1, image_size)
    labels = np.zeros(1, np.int32) if num_classes else None
    # With the outputs of all residual blocks, which Flax keeps as "intermediates".
    init = functools.partial(
        network.init_with_output,
        mutable=True,
        capture_intermediates=lambda module, _: isinstance(module, unet_blocks.ResBlock),
    )
    out, variables = jax.eval_shape(init, jax.random.key(0), x, t, labels)
    assert out.shape == x.shape
    assert out.dtype == np.float32
    blocks = variables["intermediates"].items()
    return variables["params"], {name: out["__call__"][0].shape for name, out in blocks}


@pytest.mark.parametrize(
    ("name", "order", "count", "generator", "discriminator"),
    [
        ("cifar10", "resblock_updown", 160_072_707, 160_086_531, 160_091_143),
        ("cifar10", "adm", 146_426_883, 146_440_707, 146_445_319),
        ("cifar10", "imagen", 151_146_499, 151_160_323, 151_164_935),
        ("celeba_hq", "resblock_updown", 233_622_723, 233_627_907, 233_629_639),
        ("celeba_hq", "adm", 213_656_451, 213_661_635, 213_663_367),
        ("celeba_hq", "imagen", 219_639_747, 219_644_931, 219_646_663),
        ("imagenet64", "resblock_updown", 407_415_811, 407_422_723, 407_425_031),
        ("imagenet64", "adm", 374_162_179, 374_169_091, 374_171_399),
        ("imagenet64", "imagen", 359_852_035, 359_858_947, 359_861_255),
    ],
)
def test_published_sizes(name, order, count, generator, discriminator):
    """Parameters from 3 to 3 channels, of SIDDM's generator (6 to 3) and discriminator (3 to 7)."""
    params, _ = full_size(name, order)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count
    # Channels are known to the first and the last convolution alone.
    width = params["output_norm"]["scale"].size
    assert params["input_conv"]["kernel"].shape == (3, 3, 3, width)
    assert params["output_conv"]["kernel"].shape == (3, 3, width, 3)
    assert count + 3 * 9 * width == generator
    assert count + 4 * (9 * width + 1) == discriminator


# Of each level of the way up, the deepest first: the input channels of its blocks.
CELEBA_HQ_UP = [(1536, 1536, 1344), (1344, 1152, 960), (960, 768, 576), (576, 384, 384), 3 * (384,)]
IMAGENET64_UP = [(2048, 2048, 1792), (1792, 1536, 1280), (1280, 1024, 768), (768, 512, 512)]


@pytest.mark.parametrize(
    ("name", "order", "up_inputs", "attending", "finest"),
    [
        ("cifar10", "adm", 3 * [(1024, 1024, 1024)], (1, 2), 32),
        ("cifar10", "imagen", 3 * [(1024, 1024, 1024)], (0, 1), 16),
        ("celeba_hq", "adm", CELEBA_HQ_UP, (3, 4), 256),
        ("celeba_hq", "imagen", [3 * (2 * c,) for c in (768, 576, 384, 192, 192)], (2, 3, 4), 128),
        ("imagenet64", "adm", IMAGENET64_UP, (1, 2, 3), 64),
        ("imagenet64", "imagen", [3 * (2 * c,) for c in (1024, 768, 512, 256)], (0, 1, 2), 32),
    ],
)
def test_layout(name, order, up_inputs, attending, finest):
    """Widths and resolutions of all blocks, and where attention is."""
    params, blocks = full_size(name, order)
    _, base_channels, multipliers, *_ = FULL_SIZE[name]
    expected = {"middle_attention"}
    for level, multiplier in enumerate(multipliers):
        pixels, width = finest // 2**level, base_channels * multiplier
        ways = [("down", i) for i in range(2)] + [("up", i) for i in range(3)]
        for way, i in ways:
            assert blocks[f"{way}_{level}_block_{i}"] == (1, pixels, pixels, width)
            expected |= {f"{way}_{level}_attention_{i}"} if level in attending else set()
        ours = [params[f"up_{level}_block_{i}"]["conv_0"]["kernel"].shape[2] for i in range(3)]
        assert tuple(ours) == up_inputs[-1 - level]
    assert {module for module in params if "attention" in module} == expected
    assert blocks["middle_block_0"] == blocks["middle_block_1"] == (1, pixels, pixels, width)


@quick
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"updown_order": "other"}, "updown_order='other' is not one of adm, imagen"),
        ({"updown_order": "imagen", "resblock_updown": True}, "resblock_updown=True needs"),
        ({"image_size": 9, "channel_multipliers": (1, 1)}, "image_size=9 cannot be halved 1 times"),
        ({"image_size": 9, "updown_order": "imagen"}, "image_size=9 cannot be halved 1 times"),
        ({"base_channels": 48}, "base_channels=48: .* into 32 groups; use 32 or 64"),
        ({"head_channels": 24}, "head_channels=24 does not divide the 32 channels of level 0"),
        ({"head_channels": 0, "num_heads": 3}, "num_heads=3 does not divide the 32 channels"),
        ({"head_channels": 0, "num_heads_up": 3}, "num_heads_up=3 does not divide the 32"),
    ],
)
def test_impossible_fields(fields, message):
    with pytest.raises(UserError, match=message):
        random_params(tiny_unet(**fields), *inputs(1))


@quick
def test_network_of_a_config():
    """Fields of a config, whatever else it has; missing ones have their defaults."""
    fields = {name: getattr(tiny_unet(num_classes=3), name) for name in unet.FIELDS}
    config = ConfigDict(fields | {"name": "adm", "in_channels": 3, "attention_order": "new"})
    assert unet.from_config(config, jnp.bfloat16) == tiny_unet(num_classes=3, dtype=jnp.bfloat16)
    del config.dropout
    assert unet.from_config(config) == tiny_unet(num_classes=3)


# ---- initial values


@pytest.fixture(scope="module")
def initial():
    """Output and variables of a fresh network of all kinds of layers."""
    network = tiny_unet(num_classes=50)
    arguments = (*inputs(2), np.array([3, 7]))
    return jax.jit(network.init_with_output)(random_key(), *arguments)


def test_initial_values(initial):
    """Kernels and biases are uniform within 1 / sqrt(fan-in), and fill that; or they are zero."""
    with_paths = jax.tree.leaves_with_path(initial[1]["params"])
    leaves = {tuple(key.key for key in path): leaf for path, leaf in with_paths}
    zero = set()
    for (*module, name), leaf in leaves.items():
        assert leaf.dtype == np.float32
        if "norm" in module[-1]:
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, float(name == "scale")))
        elif name == "embedding":
            assert abs(jnp.square(leaf).mean() - 1) < 6 * math.sqrt(2 / leaf.size)
        elif module[-1] in ("conv_1", "output", "output_conv"):
            np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
            zero.add(module[-1])
        else:
            fan_in = math.prod(leaves[*module, "kernel"].shape[:-1])
            values = np.asarray(leaf) * math.sqrt(fan_in)
            assert np.abs(values).max() <= 1 + 1e-6, module
            # u^2 has mean 1 / 3 and variance 4 / 45 for u uniform on [-1, 1]; 6 standard errors.
            error = 6 * math.sqrt(4 / 45 / values.size)
            assert abs(np.square(values).mean() - 1 / 3) < error, module
    assert zero == {"conv_1", "output", "output_conv"}


def test_fresh_network_is_zero(initial):
    out, _ = initial
    np.testing.assert_array_equal(out, np.zeros(out.shape, np.float32))


@quick
@pytest.mark.parametrize("features", [32, 64])
@pytest.mark.parametrize("scale_shift_norm", [True, False])
def test_fresh_residual_block_is_its_shortcut(features, scale_shift_norm):
    """The identity, or a linear map of each pixel."""
    block = unet_blocks.ResBlock(features, 0.5, scale_shift_norm, None)
    x, _ = inputs(2, channels=32)
    keys = jax.random.split(jax.random.key(0), 2)
    out, variables = jax.jit(block.init_with_output)(random_key(), x, x[:, 0, 0], keys)
    expected = x
    if features != 32:
        shortcut = variables["params"]["shortcut"]
        expected = np.einsum("bhwi,io->bhwo", x, shortcut["kernel"]) + shortcut["bias"]
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6 if features != 32 else 0)


@quick
def test_fresh_attention_is_the_identity():
    x, _ = inputs(2, channels=32)
    attention = unet_blocks.Attention(4, None)
    out, _ = jax.jit(attention.init_with_output)(random_key(), x)
    np.testing.assert_array_equal(out, x)


# ---- attention and embeddings


@quick
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # A bfloat16 has 8 significant bits; values of size 1 are rounded a few times.
    [(jnp.float64, 1e-14), (jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)],
)
def test_attend(dtype, tolerance):
    """The definition, head by head; the dtype stays, and only bfloat16 loses digits to it."""
    query, key, value = np.random.default_rng(0).standard_normal((3, 2, 5, 4, 8))
    with jax.enable_x64(dtype == jnp.float64), jax.default_matmul_precision("highest"):
        rounded = [jnp.asarray(a, dtype) for a in (query, key, value)]
        ours = unet_blocks.attend(*rounded)
        assert ours.dtype == dtype
        query, key, value = (np.asarray(a, np.float64) for a in rounded)
        for image, head in np.ndindex(2, 4):
            q, k, v = (a[image, :, head] for a in (query, key, value))
            weights = np.exp(q @ k.T / math.sqrt(8))
            expected = weights / weights.sum(axis=1, keepdims=True) @ v
            np.testing.assert_allclose(
                np.asarray(ours[image, :, head], np.float64), expected, rtol=0, atol=tolerance
            )


@quick
def test_timestep_embedding():
    """Cosines first; the frequencies fall from 1 towards 1 / 10000, which is not among them."""
    t = np.array([0.0, 1.0, 750.5], np.float32)
    with jax.enable_x64(True):
        ours = unet.timestep_embedding(t, 6, jnp.float64)
    frequencies = np.array([1, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)])
    angles = t[:, None].astype(np.float64) * frequencies
    np.testing.assert_allclose(ours, np.hstack([np.cos(angles), np.sin(angles)]), atol=1e-13)


# ---- labels


def test_labels():
    """Each image follows its own label, and only its own."""
    network = tiny_unet(num_classes=3)
    x, t = inputs(2)
    params = random_params(network, x, t, np.zeros(2, int))
    apply = jax.jit(lambda labels: network.apply({"params": params}, x, t, labels))
    first, second = apply(np.array([0, 2])), apply(np.array([1, 2]))
    assert jnp.abs(first[0] - second[0]).max() > 1e-2
    np.testing.assert_array_equal(first[1], second[1])


@quick
def test_labels_are_there_if_and_only_if_there_are_classes():
    with pytest.raises(ValueError, match="labels are missing, and num_classes is 3"):
        random_params(tiny_unet(num_classes=3), *inputs(1))
    with pytest.raises(ValueError, match="labels are given, and num_classes is 0"):
        random_params(tiny_unet(), *inputs(1), np.zeros(1, int))


# ---- recomputation and dropout


def test_recomputation_changes_nothing():
    """The same parameters, outputs and gradients, with the same masks of dropout."""
    x, t = inputs(2)
    keys = jax.random.split(jax.random.key(0), 2)
    networks = [tiny_unet(dropout=0.5, remat_resolutions=pixels) for pixels in ((), (8,))]
    params, same = (random_params(network, x, t) for network in networks)
    jax.tree.map(np.testing.assert_array_equal, params, same)

    def square_sum(network, params, x):
        out = network.apply({"params": params}, x, t, dropout_keys=keys)
        return jnp.square(out).sum(), out

    results, programs = [], []
    for network in networks:
        loss = functools.partial(square_sum, network)
        lowered = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(params, x)
        programs.append(lowered.as_text())
        results.append(lowered.compile()(params, x))
    once, again = (program.count("stablehlo.convolution") for program in programs)
    assert once < again
    ((_, out), gradients), ((_, out_again), gradients_again) = results
    np.testing.assert_allclose(out, out_again, rtol=0, atol=1e-5)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradients_again), strict=True):
        # Some gradients are zero by symmetry: what is left there is rounding.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * jnp.abs(a).max() + 1e-5)


def test_dropout():
    """Every layer and image has a mask of its own, the same one however a batch is split."""
    network = tiny_unet(dropout=0.5)
    x, t = inputs(4)
    params = random_params(network, x, t)
    keys = jax.random.split(jax.random.key(0), 4)

    def is_dropout(module, _):
        return isinstance(module, layers.Dropout)

    @jax.jit
    def generate(params, x, keys):
        def apply(x, t, keys):
            variables = {"params": params}
            return network.apply(variables, x, t, None, keys, capture_intermediates=is_dropout)

        half = slice(2, 4)
        halved = apply(x[half], t[half], keys[half])
        return apply(x, t, None)[0], apply(x, t, keys), halved[0]

    without, (dropped, variables), half = generate(params, x, keys)
    np.testing.assert_allclose(dropped[2:], half, rtol=0, atol=1e-5)
    assert (jnp.abs(dropped - without) > 1e-3).mean() > 0.5

    masks = [np.asarray(out) == 0 for out in jax.tree.leaves(variables["intermediates"])]
    assert len(masks) == 5  # residual blocks: 1 down, 2 in the middle, 2 up
    for size in {mask[0].size for mask in masks}:
        rows = np.concatenate([m.reshape(4, -1) for m in masks if m[0].size == size])
        correlations = np.corrcoef(rows) - np.eye(len(rows))
        assert np.abs(correlations).max() < 6 / math.sqrt(size)


# ---- precision


def test_bfloat16():
    """Parameters and outputs stay float32, and outputs near those of float32 computation.

    A bfloat16 has 8 significant bits, an error of 2^-9 = 0.2 % in each rounding. Some tens of
    roundings follow each other, with errors that add up like a random walk: 2 % of the outputs'
    size are allowed. Statistics in bfloat16 would cost more than that.
    """
    x, t = inputs(2)
    full, half = (
        tiny_unet(channel_multipliers=(1, 2), dtype=dtype) for dtype in (None, jnp.bfloat16)
    )
    params = random_params(half, x, t)

    @jax.jit
    def generate(params):
        return [network.apply({"params": params}, x, t) for network in (full, half)]

    expected, ours = generate(params)
    assert ours.dtype == expected.dtype == np.float32
    error = jnp.sqrt(jnp.square(ours - expected).mean() / jnp.square(expected).mean())
    assert 1e-4 < error < 0.02  # the lower bound: it was another computation
