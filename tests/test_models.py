"""Layers and networks: sizes, initial values, resampling, statistics, dropout, precision."""

import functools
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ddgan_jax import models
from ddgan_jax.config import base_config
from ddgan_jax.config.files import load_config
from ddgan_jax.models import layers, resample
from ddgan_jax.models.discriminators import minibatch_stddev
from tests.methods import random_params

CONFIGS = Path(__file__).parents[1] / "configs"

quick = pytest.mark.quick


def tiny_config(**fields):
    """Networks of one level on 8 x 8 gray images."""
    config = base_config()
    config.update_from_flattened_dict(
        {
            "data.image_size": 8,
            "data.channels": 1,
            "generator.base_channels": 8,
            "generator.channel_multipliers": (1,),
            "generator.num_res_blocks": 1,
            "generator.attention_resolutions": (8,),
            "generator.latent_dim": 4,
            "generator.latent_embedding_dim": 8,
            "generator.latent_layers": 1,
            "discriminator.base_channels": 2,
            "discriminator.time_embedding_dim": 8,
        }
        | fields
    )
    return config


# ---- sizes


@quick
@pytest.mark.parametrize(
    ("name", "generator", "discriminator"),
    [
        ("cifar10", (48_432_515, 384), (12_741_633, 38)),
        ("celebahq256", (39_726_979, 548), (27_737_217, 52)),
        ("lsun_church256", (39_726_979, 548), (27_737_217, 52)),
    ],
)
def test_published_sizes(name, generator, discriminator):
    """(parameters, tensors) of both networks at full size."""
    config = load_config(str(CONFIGS / f"{name}_ddgan.py"))
    params = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))
    for network, expected in zip(params, (generator, discriminator), strict=True):
        shapes = [leaf.shape for leaf in jax.tree.leaves(network)]
        assert (sum(map(math.prod, shapes)), len(shapes)) == expected


# ---- initial values


@pytest.fixture(scope="module")
def initial_params():
    """Both networks wide enough for statistics, and the parts that they have in no other case."""
    wide = {"generator.base_channels": 32, "discriminator.base_channels": 16}
    ddpm = {"generator.resblock": "ddpm"}
    large = {"discriminator.name": "large", "data.image_size": 64}

    @jax.jit
    def init():
        key = jax.random.key(0)
        generator, discriminator = models.init_params(tiny_config(**wide), key)
        return {
            "generator": generator,
            "discriminator": discriminator,
            "ddpm generator": models.init_params(tiny_config(**wide, **ddpm), key)[0],
            "large discriminator": models.init_params(tiny_config(**wide, **large), key)[1],
        }

    return init()


def initial_variance(network, path, shape):
    """Of a kernel, by its place; a scale of 0 stands for 1e-10."""
    module = path[-2]
    scale, fan = 1.0, "average"
    if "discriminator" in network or module == "style" or path[0] == "latent_mapping":
        fan = "out"
    if module == "conv_1" or (module == "output_conv" and network != "large discriminator"):
        scale = 1e-10
    if "generator" in network and module == "output":
        scale = 1e-10
    if module in ("query", "key", "value") or (module == "shortcut" and "ddpm" in network):
        scale = 0.1
    receptive, inputs, outputs = math.prod(shape[:-2]), *shape[-2:]
    return scale / (receptive * (outputs if fan == "out" else (inputs + outputs) / 2))


def test_initial_kernels(initial_params):
    """Uniform within the bound of its variance, and filling it."""
    kernels = 0
    for (network, *path), leaf in paths_and_leaves(initial_params):
        if path[-1] != "kernel":
            continue
        kernels += 1
        bound = math.sqrt(3 * initial_variance(network, path, leaf.shape))
        values = np.asarray(leaf) / bound
        assert np.abs(values).max() <= 1 + 1e-6, path
        if values.size >= 200:
            # u^2 has mean 1 / 3 and variance 4 / 45 for u uniform on [-1, 1]; 6 standard errors.
            error = 6 * math.sqrt(4 / 45 / values.size)
            assert abs(np.square(values).mean() - 1 / 3) < error, path
    assert kernels > 100


def paths_and_leaves(tree):
    return [([k.key for k in keys], leaf) for keys, leaf in jax.tree.leaves_with_path(tree)]


def test_other_initial_values(initial_params):
    """Biases 0 and scales 1; of a style's bias the first half, the scales, is 1."""
    for (*_, module, name), leaf in paths_and_leaves(initial_params):
        expected = {"scale": 1, "bias": 0}.get(name)
        if module == "style" and name == "bias":
            expected = np.repeat([1, 0], len(leaf) // 2)
        if expected is not None:
            np.testing.assert_array_equal(leaf, np.broadcast_to(expected, leaf.shape))
        assert leaf.dtype == np.float32


# ---- resampling


def literal_matrix(n, taps, up, down, pad):
    """The resampling as its definition says, as a matrix on a line of n samples."""
    columns = []
    for unit in np.eye(n):
        stretched = np.zeros(n * up)
        stretched[::up] = unit
        padded = np.pad(stretched, [max(p, 0) for p in pad])
        padded = padded[max(-pad[0], 0) : len(padded) - max(-pad[1], 0)]
        columns.append(np.convolve(padded, taps, "valid")[::down])
    return np.stack(columns, axis=1)


def resampling_cases():
    """Random ones, of at least as many taps as the up-sampling has phases."""
    rng = np.random.default_rng(0)
    cases = []
    while len(cases) < 20:
        n, num_taps, up, down = rng.integers((4, 1, 1, 1), (9, 7, 4, 4)).tolist()
        pad = tuple(rng.integers(-2, 5, 2).tolist())
        if num_taps >= up and n * up + sum(pad) >= num_taps:
            cases.append((n, rng.standard_normal(num_taps).tolist(), up, down, pad))
    return cases


@quick
@pytest.mark.parametrize(
    ("n", "taps", "up", "down", "pad"),
    resampling_cases(),
    ids=lambda value: f"{len(value)}taps" if isinstance(value, list) else str(value),
)
def test_polyphase_is_the_definition(n, taps, up, down, pad):
    """Values and gradients, for any taps, factors and pads (negative ones crop)."""
    matrix = literal_matrix(n, taps, up, down, pad)
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        x = rng.standard_normal((2, n, 3))

        @jax.jit
        def value_and_pullback(x, y):
            out, vjp = jax.vjp(lambda x: resample.upfirdn(x, taps, 1, up=up, down=down, pad=pad), x)
            return out, vjp(y)[0]

        y = rng.standard_normal((2, len(matrix), 3))
        out, gradient = value_and_pullback(x, y)
        np.testing.assert_allclose(out, np.einsum("oi,bic->boc", matrix, x), atol=1e-12)
        np.testing.assert_allclose(gradient, np.einsum("oi,boc->bic", matrix, y), atol=1e-12)


@quick
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 2), (5, 2), (3, 3), (4, 6)])
def test_convolution_of_any_map(shape):
    """Small maps take another path than XLA's convolution, to the same values and gradients."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape, 3)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 3, 4)).astype(np.float32)
    bias = rng.standard_normal(4).astype(np.float32)
    r = rng.standard_normal((2, *shape, 4)).astype(np.float32)
    layer = layers.Conv3x3(4, nn.initializers.zeros)

    def ours(x, kernel):
        return layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)

    def reference(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        padding = ((1, 1), (1, 1))
        return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout) + bias

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(function, x, kernel):
        out, vjp = jax.vjp(function, x, kernel)
        return out, *vjp(r)

    with jax.default_matmul_precision("highest"):
        for a, b in zip(
            value_and_gradients(ours, x, kernel),
            value_and_gradients(reference, x, kernel),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# ---- statistics


@quick
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 8, 12])
def test_minibatch_stddev(batch):
    """Groups of up to four at stride B / 4, each with one number for all of its members."""
    x = np.random.default_rng(0).standard_normal((batch, 2, 3, 5)).astype(np.float32)
    num_groups = max(1, batch // 4)
    expected = np.empty(batch)
    for group in range(num_groups):
        members = np.arange(group, batch, num_groups)
        assert len(members) == min(batch, 4)
        variance = x[members].astype(np.float64).var(axis=0)
        expected[members] = np.sqrt(variance + 1e-8).mean()
    ours = minibatch_stddev(jnp.asarray(x))
    assert ours.shape == (batch, 2, 3, 1)
    np.testing.assert_allclose(
        ours, np.broadcast_to(expected[:, None, None, None], ours.shape), 1e-5
    )


@quick
@pytest.mark.parametrize("batch", [5, 6, 7, 9, 10])
def test_minibatch_stddev_refuses_incomplete_groups(batch):
    with pytest.raises(ValueError, match=f"{batch} images do not form groups of 4"):
        minibatch_stddev(jnp.zeros((batch, 2, 2, 1)))


@quick
def test_statistics_are_not_in_bfloat16():
    """Means of many values far from zero, which bfloat16 sums would lose entirely."""
    x = (100 + np.random.default_rng(0).standard_normal((2, 16, 16, 8))).astype(np.float32)
    x = jnp.asarray(x).astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64).reshape(2, 256, 2, 4)
    centred = exact - exact.mean((1, 3), keepdims=True)
    expected = centred / np.sqrt(np.square(centred).mean((1, 3), keepdims=True) + 1e-6)
    ours = layers.group_norm(x, jnp.ones(8), jnp.zeros(8), 2)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected.reshape(x.shape), rtol=1e-4, atol=1e-4)

    stddev = minibatch_stddev(x)
    assert stddev.dtype == np.float32
    expected = np.sqrt(np.asarray(x, np.float64).var(0) + 1e-8).mean()
    np.testing.assert_allclose(stddev, np.full((2, 16, 16, 1), expected), rtol=1e-5)


def test_bfloat16_networks():
    """Parameters and outputs stay float32, and outputs near those of float32 computation.

    A bfloat16 has 8 significant bits, an error of 2^-9 = 0.2 % in each rounding. Some tens of
    roundings follow each other, with errors that add up like a random walk: 2 % of the outputs'
    size are allowed. Statistics in bfloat16 would cost more than that.
    """
    x, x_tp1 = np.random.default_rng(0).standard_normal((2, 4, 8, 8, 1)).astype(np.float32)
    t, z = np.array([0, 1, 2, 3]), np.random.default_rng(1).standard_normal((4, 4))
    z = z.astype(np.float32)
    outputs = {}
    for compute_dtype in ("float32", "bfloat16"):
        config = tiny_config(**{"train.compute_dtype": compute_dtype})
        template = jax.eval_shape(lambda c=config: models.init_params(c, jax.random.key(0)))
        assert {leaf.dtype for leaf in jax.tree.leaves(template)} == {np.dtype(np.float32)}
        generator, discriminator = random_params(template)

        def apply(generator, discriminator, config=config):
            image = models.build_generator(config).apply({"params": generator}, x, t, z)
            logits = models.build_discriminator(config).apply(
                {"params": discriminator}, x, t, x_tp1
            )
            return image, logits

        outputs[compute_dtype] = jax.jit(apply)(generator, discriminator)
    for full, half in zip(*outputs.values(), strict=True):
        assert full.dtype == half.dtype == np.float32
        error = jnp.sqrt(jnp.square(full - half).mean() / jnp.square(full).mean())
        assert 1e-4 < error < 0.02  # the lower bound: it was another computation


# ---- dropout


class TwoDropouts(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, keys):
        return [layers.Dropout(self.rate, name=name)(x, keys) for name in ("first", "second")]


@quick
def test_dropout():
    """A share `rate` is zero and the mean stays; layers and examples have masks of their own."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jnp.ones((4, 50, 40, 1))
    first, second = TwoDropouts(0.25).apply({}, x, keys)
    for out in (first, second):
        np.testing.assert_allclose(np.unique(out), [0, 1 / 0.75], rtol=1e-6)
        share = (out == 0).mean()
        assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / out.size)
        assert abs(out.mean() - 1) < 5 * math.sqrt(0.25 / 0.75 / out.size)
    masks = np.concatenate([first, second]).reshape(8, -1)
    correlations = np.corrcoef(masks) - np.eye(8)
    assert np.abs(correlations).max() < 5 / math.sqrt(masks.shape[1])


@quick
def test_dropout_depends_on_the_example_alone():
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(jax.random.key(1), (4, 3, 3, 2))
    whole = TwoDropouts(0.5).apply({}, x, keys)
    order = np.array([3, 1])
    part = TwoDropouts(0.5).apply({}, x[order], keys[order])
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[order], b)


@quick
def test_no_dropout():
    x = jnp.ones((4, 3, 3, 2))
    keys = jax.random.split(jax.random.key(0), 4)
    for rate, given in ((0.0, keys), (0.5, None)):
        for out in TwoDropouts(rate).apply({}, x, given):
            np.testing.assert_array_equal(out, x)


def test_dropout_in_the_generator():
    """On with keys, off without; an image's mask stays its own in any batch."""
    config = tiny_config(**{"generator.dropout": 0.5})
    template = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))[0]
    params = random_params(template)
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 1)).astype(np.float32)
    t, z = np.arange(4), x[:, 0, :4, 0]
    keys = jax.random.split(jax.random.key(0), 4)

    @jax.jit
    def generate(params, x, z, keys):
        def apply(part, keys):
            return models.build_generator(config).apply(
                {"params": params}, x[part], t[part], z[part], dropout_keys=keys
            )

        whole = slice(None)
        halves = [apply(part, keys[part]) for part in (slice(2), slice(2, 4))]
        return apply(whole, None), apply(whole, keys), jnp.concatenate(halves)

    without, dropped, in_halves = generate(params, x, z, keys)
    np.testing.assert_allclose(dropped, in_halves, atol=1e-5)
    assert (jnp.abs(dropped - without) > 1e-3).mean() > 0.5
