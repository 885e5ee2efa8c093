"""The generator with Haar transforms: its parts, its switches and its initial values, by laws."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import haar, models
from ddgan_jax.config import checks, diffused_shape, wavediff_config
from ddgan_jax.haar import Details
from ddgan_jax.models import layers, ncsnpp_blocks, resample, wavelet
from tests.methods import random_params

pytestmark = pytest.mark.quick


def config_with(**fields):
    """Networks of two levels on 8 x 8 bands of gray images; fields are spelled section__field."""
    small = {
        "data.image_size": 16,
        "data.channels": 1,
        "generator.base_channels": 8,
        "generator.channel_multipliers": (1, 2),
        "generator.num_res_blocks": 1,
        "generator.attention_resolutions": (),
        "generator.latent_dim": 4,
        "generator.latent_embedding_dim": 8,
        "generator.latent_layers": 1,
        "discriminator.num_blocks": 3,
    }
    config = wavediff_config()
    changes = {name.replace("__", "."): value for name, value in fields.items()}
    config.update_from_flattened_dict(small | changes)
    return config


def generator_inputs(config, batch=2):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *diffused_shape(config))).astype(np.float32)
    z = rng.standard_normal((batch, *models.latent_shape(config))).astype(np.float32)
    return x, np.arange(batch, dtype=np.int32), z


# ---- parts


def test_patches_are_folded_patch_by_patch_and_unfolded_channel_by_channel():
    """Two orders, as published: the one is not the inverse of the other."""
    P, C = 2, 3
    x = jnp.arange(2.0 * 4 * 6 * C).reshape(2, 4, 6, C)
    folded, wide = wavelet.to_patches(x, P), np.zeros((2, 2, 3, P * P * C))
    for p, q, c in np.ndindex(P, P, C):
        np.testing.assert_array_equal(folded[..., (p * P + q) * C + c], x[:, p::P, q::P, c])
        wide[..., c * P * P + p * P + q] = x[:, p::P, q::P, c]
    np.testing.assert_array_equal(wavelet.from_patches(jnp.asarray(wide), P), x)
    assert not np.array_equal(wavelet.from_patches(folded, P), x)
    np.testing.assert_array_equal(wavelet.to_patches(x, 1), x)
    np.testing.assert_array_equal(wavelet.from_patches(x, 1), x)


def test_convolutions_of_bands_do_not_mix_them():
    """Each is a convolution by a third of the kernel, and counts its bias twice."""
    features, shape = 5, (2, 4, 6, 3)
    module = wavelet.BandConvs(features, None)
    rng = np.random.default_rng(0)
    bands = Details(*(rng.standard_normal(shape).astype(np.float32) for _ in range(3)))
    params = random_params(jax.eval_shape(module.init, jax.random.key(0), bands)["params"])
    out = module.apply({"params": params}, bands)
    for i, (band, ours) in enumerate(zip(bands, out, strict=True)):
        part = slice(i * features, (i + 1) * features)
        conv = layers.Conv3x3(features, nn.initializers.zeros)
        expected = conv.apply(
            {"params": {"kernel": params["kernel"][..., part], "bias": 2 * params["bias"][part]}},
            band,
        )
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


class Middle(wavelet.WaveletNCSNpp, kw_only=True):
    """The middle of the generator alone."""

    @nn.compact
    def __call__(self, h, *context):
        return self._middle(h, context)


def test_middle_and_the_gradient_of_its_block_that_is_used_twice():
    """h + nearest(B(m) - m), where m is the 2 x 2 mean of h: the details stay.

    The second block works on all of h, too. The gradient of its parameters is the sum of those of
    both uses, as if they were two blocks.
    """
    network = models.build_generator(config_with())
    middle = Middle(**{name: getattr(network, name) for name in fields_of(network)})
    block = ncsnpp_blocks.ResBlock(8, "biggan", 0.0, True, None, True, (1, 3, 3, 1))
    attention = layers.Attention(True, None)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        h, time, latent, r = map(jnp.asarray, (
            rng.standard_normal((2, 4, 4, 8)), rng.standard_normal((2, 32)),
            rng.standard_normal((2, 8)), rng.standard_normal((2, 4, 4, 8)),
        ))  # fmt: skip
        context = (time, latent, None)
        params = jax.tree.map(
            lambda leaf: leaf.astype(np.float64),
            random_params(jax.eval_shape(middle.init, jax.random.key(0), h, *context)["params"]),
        )

        def used(h, params):
            return block.apply({"params": params}, h, *context)

        def on_means(h, params):
            mean = resample.downsample_mean(h)
            return h + resample.upsample_nearest(used(mean, params) - mean)

        def in_steps(first, attends, second, third):
            h_1 = attention.apply({"params": attends}, on_means(h, first))
            out = on_means(used(h_1, second), third)
            return (out * r).sum(), out

        def ours(params):
            out = middle.apply({"params": params}, h, *context)
            return (out * r).sum(), out

        parts = [params[f"middle_{name}"] for name in ("block_0", "attention", "block_1")]
        (_, out), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))(params)
        (_, expected), (first, attends, second, third) = jax.jit(
            jax.value_and_grad(in_steps, (0, 1, 2, 3), has_aux=True)
        )(*parts, parts[-1])
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)
    both = {
        "middle_block_0": first,
        "middle_attention": attends,
        "middle_block_1": jax.tree.map(jnp.add, second, third),
    }
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * max(1, np.abs(b).max()))


def fields_of(network):
    return set(network.__dataclass_fields__) - {"parent", "name"}


def test_blocks_that_resample_hand_details_over():
    """With branches of zeros: down to the means of 2 x 2, and up by joining them with details.

    The details are those of the branch, here none; the convolutions on the way up are identities.
    """
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 8)).astype(np.float32)
    parts = (8, "biggan", 0.0, False, None)
    context = (None, np.zeros((2, 8), np.float32), None)

    def zeros_but_for_the_shortcut(module, *inputs):
        template = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
        params["shortcut"]["kernel"] = np.eye(8, dtype=np.float32)
        return params

    down, up = wavelet.WaveletDown(*parts), wavelet.WaveletUp(*parts)
    params = zeros_but_for_the_shortcut(down, x, *context)
    mean, details = down.apply({"params": params}, x, *context)
    np.testing.assert_allclose(mean, resample.downsample_mean(jnp.asarray(x)), atol=1e-6)
    assert not any(np.any(band) for band in details)

    own = Details(*(np.full((2, 2, 2, 8), value, np.float32) for value in (1.0, 2.0, 3.0)))
    params = zeros_but_for_the_shortcut(up, mean, own, *context)
    params["detail_convs"]["kernel"][1, 1] = np.tile(np.eye(8), 3)
    out = up.apply({"params": params}, mean, own, *context)
    np.testing.assert_allclose(out, haar.join(2 * mean, own), atol=1e-6)


# ---- switches


def test_without_its_parts_it_is_ddgans_generator():
    """The same parameters and the same numbers."""
    off = {f"generator__wavelet_{part}": False for part in ("blocks", "middle", "pyramid")}
    config = config_with(**off)
    plain = config_with()
    known = wavediff_config().generator.to_dict().keys() - {"patch_size"}
    plain.generator = {
        name: value
        for name, value in config.generator.items()
        if name in known and not name.startswith("wavelet_")
    } | {"name": "ncsnpp"}
    checks.check_model(plain)
    params = random_params(models.abstract_params(config)[0])
    same = models.abstract_params(plain)[0]
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(lambda s: s.shape, same)
    inputs = generator_inputs(config)
    outputs = [jax.jit(models.generator(c))(params, *inputs) for c in (config, plain)]
    np.testing.assert_array_equal(*outputs)


def test_initial_kernels():
    """Uniform, of variance 2 / (fan_in + fan_out), with the published fans of grouped kernels."""
    config = config_with(generator__base_channels=32)
    params = jax.jit(lambda: models.init_params(config, jax.random.key(0))[0])()
    bands, pyramid = params["up_1_upsample"]["detail_convs"], params["down_0_pyramid"]
    # Of the level above 32, of this one 64; four bands of four channels become 32.
    for leaf, inputs, outputs in ((bands, 32, 3 * 64), (pyramid, 4 * 4, 32)):
        assert leaf["kernel"].shape == (3, 3, inputs, outputs)
        assert not leaf["bias"].any()
        bound = math.sqrt(3 * 2 / (9 * (inputs + outputs)))
        kernel = np.asarray(leaf["kernel"]) / bound
        assert np.abs(kernel).max() <= 1 + 1e-6
        error = 6 * math.sqrt(4 / 45 / kernel.size)  # six standard errors
        assert abs(np.square(kernel).mean() - 1 / 3) < error
