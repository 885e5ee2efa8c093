"""Sampling: one seed is one image, and the steps are those of the reverse chain."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import models, parallel, sampling
from ddgan_jax.config import base_config


def tiny_config(num_timesteps=4):
    config = base_config()
    config.data.image_size, config.data.channels = 8, 1
    config.diffusion.num_timesteps = num_timesteps
    config.sampling.chunk_size = 3
    g = config.generator
    g.base_channels, g.channel_multipliers, g.num_res_blocks = 4, (1,), 1
    g.attention_resolutions, g.progressive_input = (4,), "none"
    g.latent_dim, g.latent_embedding_dim, g.latent_layers = 4, 4, 0
    return config


# ---- one seed, one image


@pytest.fixture(scope="module")
def params():
    """Weights of a generator whose images differ; at its initial ones they are all gray."""
    template = jax.eval_shape(lambda: models.init_params(tiny_config(), jax.random.key(0)))[0]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(-0.5, 0.5, leaf.shape).astype("f4"), template)


@pytest.fixture(scope="module")
def drawers(params):
    """Number of devices -> the images of given seeds, uint8."""

    def make(num_devices):
        devices = jax.devices()[:num_devices]
        draw = sampling.make_drawer(tiny_config(), devices)
        placed = jax.device_put(params, parallel.replicated(devices))
        return lambda seeds: sampling.draw_all(draw, placed, seeds)

    return {num_devices: make(num_devices) for num_devices in (1, 4)}


SEEDS = list(range(5)) + [2**31, 2**32 - 1]


@pytest.fixture(scope="module")
def images(drawers):
    """Those of SEEDS, drawn on one device in chunks of three."""
    return dict(zip(SEEDS, drawers[1](SEEDS), strict=True))


def test_different_seeds_are_different_images(images):
    assert len({image.tobytes() for image in images.values()}) == len(SEEDS)
    # Of many grays, so that equal images are equal numbers.
    assert all(len(np.unique(image)) > 20 for image in images.values())
    assert {image.shape for image in images.values()} == {(8, 8, 1)}


@pytest.mark.parametrize(
    "seeds", [[3], [2**32 - 1, 0], SEEDS[::-1], [1, 1, 1, 1]], ids=["one", "two", "turned", "same"]
)
@pytest.mark.parametrize("num_devices", [1, 4])
def test_image_of_a_seed(drawers, images, seeds, num_devices):
    """Whatever else is asked for, in whatever order, on however many devices: the same bits."""
    drawn = drawers[num_devices](seeds)
    np.testing.assert_array_equal(drawn, np.stack([images[seed] for seed in seeds]))


# ---- the steps, with generators of one line


def sample_with(monkeypatch, generate, count=4, **fields):
    """The sampler's result for generate(x, t, z) in the place of the network."""
    config = base_config()
    config.data.image_size, config.data.channels = 2, 1
    config.generator.latent_dim = 3
    config.update_from_flattened_dict(fields)
    network = SimpleNamespace(apply=lambda variables, x, t, z: generate(x, t, z))
    monkeypatch.setattr(models, "build_generator", lambda config: network)
    sample = jax.jit(sampling.make_sampler(config))
    return np.asarray(sample({}, np.arange(count, dtype=np.uint32)))


def _column(v):
    return v[:, None, None, None]


@pytest.mark.quick
@pytest.mark.parametrize("num_timesteps", [1, 2, 8])
def test_times_are_visited_from_noise_to_image(monkeypatch, num_timesteps):
    """Each step appends its time as a digit to what the steps before have written."""

    def generate(x, t, z):
        written = jnp.where(_column(t) == num_timesteps - 1, 0, x)
        return 10 * written + _column(t)

    x = sample_with(
        monkeypatch,
        generate,
        **{"objective.prediction": "x_t", "diffusion.num_timesteps": num_timesteps},
    )
    digits = int("".join(str(t) for t in reversed(range(num_timesteps))))
    np.testing.assert_allclose(x, np.full((4, 2, 2, 1), digits), rtol=1e-6)


@pytest.mark.quick
def test_true_image_comes_out(monkeypatch):
    """A generator that knows x_0 is believed in the end, without noise."""
    x = sample_with(monkeypatch, lambda x, t, z: jnp.full_like(x, 0.3))
    np.testing.assert_allclose(x, 0.3, rtol=1e-6)


@pytest.mark.quick
def test_chain_starts_from_noise(monkeypatch):
    """T = 1 and the input itself as output: standard normal, of each image its own."""
    fields = {"objective.prediction": "x_t", "diffusion.num_timesteps": 1}
    x = sample_with(monkeypatch, lambda x, t, z: x, count=2_000, **fields).reshape(2_000, 4)
    error = 5 / np.sqrt(2_000)
    assert np.abs(x.mean(0)).max() < error
    assert np.abs(np.cov(x.T) - np.eye(4)).max() < np.sqrt(2) * error


@pytest.mark.quick
def test_latents(monkeypatch):
    """Standard normal and fresh in every step; zero for a generator without latents."""

    def generate(x, t, z):
        """Writes z_0 into column t."""
        columns = jnp.arange(2)[:, None]
        return jnp.where(columns == _column(t), _column(z[:, 0]), x)

    def latents(**more):
        fields = {"objective.prediction": "x_t", "diffusion.num_timesteps": 2} | more
        return sample_with(monkeypatch, generate, count=2_000, **fields)[:, 0, :, 0]

    z = latents()
    error = 5 / np.sqrt(2_000)
    assert np.abs(z.mean(0)).max() < error
    assert np.abs(np.cov(z.T) - np.eye(2)).max() < np.sqrt(2) * error
    assert not latents(**{"generator.latent": "none"}).any()
