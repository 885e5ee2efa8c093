"""Sampling: one seed is one image, and the steps are those of the reverse chain."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import build, distributed, models
from ddgan_jax.config import GENERATORS, base_config
from ddgan_jax.errors import UserError
from ddgan_jax.inference import drawing
from ddgan_jax.inference.drawing import Request, each_class, names, overview
from tests.methods import SMALLEST, config_of, random_params

# ---- one seed, one image


SEEDS = list(range(5)) + [2**31, 2**32 - 1]


@pytest.fixture(scope="module", params=SMALLEST)
def config(request):
    """DDGAN, and SIDDM with classes; in chunks of three images."""
    return config_of(request.param, sampling__chunk_size=3, diffusion__num_timesteps=4)


@pytest.fixture(scope="module")
def drawers(config):
    """Number of devices -> the images of given requests, uint8."""
    # Of a generator whose images differ; at its initial weights they are all gray.
    params = random_params(jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))[0])

    def make(num_devices):
        devices = jax.devices()[:num_devices]
        draw = drawing.make_drawer(build.sampler(config), devices, config.sampling.chunk_size)
        placed = jax.device_put(params, distributed.replicated(devices))
        return lambda request: drawing.draw_all(draw, placed, request)

    return {num_devices: make(num_devices) for num_devices in (1, 4)}


@pytest.fixture(scope="module")
def images(config, drawers):
    """Those of SEEDS, drawn on one device in chunks of three."""
    return dict(zip(SEEDS, drawers[1](each_class(config.data.num_classes, SEEDS)), strict=True))


def test_different_seeds_are_different_images(images):
    assert len({image.tobytes() for image in images.values()}) == len(SEEDS)
    # Of many grays, so that equal images are equal numbers.
    assert all(len(np.unique(image)) > 20 for image in images.values())
    assert {image.shape for image in images.values()} == {(8, 8, 1)}


@pytest.mark.parametrize(
    "seeds", [[3], [2**32 - 1, 0], SEEDS[::-1], [1, 1, 1, 1]], ids=["one", "two", "turned", "same"]
)
@pytest.mark.parametrize("num_devices", [1, 4])
def test_image_of_a_seed(config, drawers, images, seeds, num_devices):
    """Whatever else is asked for, in whatever order, on however many devices: the same bits."""
    drawn = drawers[num_devices](each_class(config.data.num_classes, seeds))
    np.testing.assert_array_equal(drawn, np.stack([images[seed] for seed in seeds]))


def test_image_of_a_class(config, drawers):
    """A seed has an image for each class, whichever others are drawn; without classes only one."""
    labels = [0, 1, 9]
    drawn = drawers[4](Request([7] * 3, labels))
    assert len({image.tobytes() for image in drawn}) == (3 if config.data.num_classes else 1)
    for label, image in zip(labels, drawn, strict=True):
        np.testing.assert_array_equal(drawers[1](Request([7], [label])), image[None])


# ---- the steps, with generators of one line


def sample_with(generate, count=4, labels=None, **fields):
    """Return the sampler's images for generate(x, t, z, labels) in the place of the network."""
    config = base_config()
    config.data.image_size, config.data.channels = 2, 1
    config.generator.latent_dim = 3
    conditional = labels is not None
    if conditional:
        config.generator = GENERATORS["unet"]()
    config.update_from_flattened_dict(fields)
    sampler = dataclasses.replace(
        build.sampler(config), generate=lambda params, x, t, z, labels: generate(x, t, z, labels)
    )
    labels = np.array(labels if conditional else [0] * count, np.int32)
    seeds = np.arange(count, dtype=np.uint32)
    return np.asarray(jax.jit(lambda: sampler({}, seeds, labels).x_t[-1])())


def _column(v):
    return v[:, None, None, None]


@pytest.mark.quick
@pytest.mark.parametrize("num_timesteps", [1, 2, 8])
def test_times_are_visited_from_noise_to_image(num_timesteps):
    """Each step appends its time as a digit to what the steps before have written."""

    def generate(x, t, z, labels):
        written = jnp.where(_column(t) == num_timesteps - 1, 0, x)
        return 10 * written + _column(t)

    x = sample_with(
        generate,
        **{"objective.prediction": "x_t", "diffusion.num_timesteps": num_timesteps},
    )
    digits = int("".join(str(t) for t in reversed(range(num_timesteps))))
    np.testing.assert_allclose(x, np.full((4, 2, 2, 1), digits), rtol=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize(("trained", "num_steps"), [(4, 0), (4, 1), (4, 2), (2, 8)])
def test_continuous_times_are_visited_in_any_number_of_steps(trained, num_steps):
    """The network is told 1000 tau, tau = 1, 1 - 1/n, .., 1/n; steps are written as before."""
    n = num_steps or trained

    def generate(x, t, z, labels):
        written = jnp.where(_column(t) == 1000, 0, x)
        return 10 * written + jnp.round(_column(t) / 1000 * n, 3)

    fields = {"diffusion.schedule": "cosine", "diffusion.num_timesteps": trained}
    fields |= {"objective.prediction": "x_t", "sampling.num_steps": num_steps}
    x = sample_with(generate, **fields)
    digits = int("".join(str(k) for k in range(n, 0, -1)))
    np.testing.assert_allclose(x, np.full((4, 2, 2, 1), digits), rtol=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize("schedule", ["vp", "cosine"])
def test_true_image_comes_out(schedule):
    """A generator that knows x_0 is believed in the end, without noise."""
    x = sample_with(
        lambda x, t, z, labels: jnp.full_like(x, 0.3),
        **{"diffusion.schedule": schedule},
    )
    np.testing.assert_allclose(x, 0.3, rtol=1e-6)


@pytest.mark.quick
def test_chain_starts_from_noise():
    """T = 1 and the input itself as output: standard normal, of each image its own."""
    fields = {"objective.prediction": "x_t", "diffusion.num_timesteps": 1}
    x = sample_with(lambda x, t, z, labels: x, count=2_000, **fields)
    x = x.reshape(2_000, 4)
    error = 5 / np.sqrt(2_000)
    assert np.abs(x.mean(0)).max() < error
    assert np.abs(np.cov(x.T) - np.eye(4)).max() < np.sqrt(2) * error


@pytest.mark.quick
def test_latents():
    """Standard normal and fresh in every step; zero for a generator without latents."""

    def generate(x, t, z, labels):
        """Writes z_0 into column t."""
        columns = jnp.arange(2)[:, None]
        return jnp.where(columns == _column(t), _column(z[:, 0]), x)

    def latents(**more):
        fields = {"objective.prediction": "x_t", "diffusion.num_timesteps": 2} | more
        return sample_with(generate, count=2_000, **fields)[:, 0, :, 0]

    z = latents()
    error = 5 / np.sqrt(2_000)
    assert np.abs(z.mean(0)).max() < error
    assert np.abs(np.cov(z.T) - np.eye(2)).max() < np.sqrt(2) * error
    assert not latents(**{"generator.latent": "none"}).any()


@pytest.mark.quick
def test_latents_of_a_unet_are_images():
    """As many further channels, uniform in [0, 1) if the config says so."""
    z = sample_with(
        lambda x, t, z, labels: z,
        count=2_000,
        labels=[0] * 2_000,
        **{"objective.prediction": "x_t", "generator.latent": "uniform"},
    ).reshape(2_000, 4)
    assert (z >= 0).all() and (z < 1).all()
    error = 5 / np.sqrt(2_000)
    assert np.abs(z.mean(0) - 1 / 2).max() < error
    assert np.abs(np.cov(z.T) - np.eye(4) / 12).max() < np.sqrt(2) * error


@pytest.mark.quick
def test_class_reaches_the_network():
    labels = [3, 0, 9, 3]
    x = sample_with(
        lambda x, t, z, labels: jnp.broadcast_to(_column(labels / 10), x.shape),
        labels=labels,
        **{"data.num_classes": 10},
    )
    np.testing.assert_allclose(x[:, 0, 0, 0], np.array(labels) / 10, rtol=1e-6)


# ---- requests: which seeds of which classes


def classes(num_classes, num_samples=64):
    config = base_config()
    config.data.num_classes, config.log.num_samples = num_classes, num_samples
    return config


@pytest.mark.quick
@pytest.mark.parametrize(
    ("num_classes", "seeds", "labels", "expected"),
    [
        (0, [4, 1], (), ([4, 1], [0, 0])),
        (3, [4, 1, 3], (), ([4, 1, 3], [1, 1, 0])),  # seed s has class s modulo 3
        (3, [4, 1], "all", ([4, 1] * 3, [0, 0, 1, 1, 2, 2])),
        (300, [4, 1], [207, 88], ([4, 1] * 2, [207, 207, 88, 88])),
    ],
)
def test_every_seed_for_every_label(num_classes, seeds, labels, expected):
    seeds_of_images, labels_of_images = each_class(num_classes, seeds, labels)
    assert (list(seeds_of_images), list(labels_of_images)) == expected


@pytest.mark.quick
@pytest.mark.parametrize(
    ("num_classes", "labels", "message"),
    [
        (0, "all", "`labels`: this model was trained without classes"),
        (0, [1], "`labels`: this model was trained without classes"),
        (10, [3, 10], "`labels`: 10 is not one of the classes 0 to 9"),
    ],
)
def test_labels_that_the_model_does_not_know(num_classes, labels, message):
    with pytest.raises(UserError, match=message):
        each_class(num_classes, [0], labels)


@pytest.mark.quick
def test_names_tell_images_apart():
    assert names(Request([3, 1_234_567], [0, 0])) == ["000003", "1234567"]
    assert names(each_class(10, [12], [7])) == ["000012"]
    request = each_class(1000, [3, 12], [207, 88])
    expected = ["class0207_000003", "class0207_000012", "class0088_000003", "class0088_000012"]
    assert names(request) == expected


@pytest.mark.quick
@pytest.mark.parametrize(
    ("num_classes", "count", "seeds", "labels"),
    [
        (0, 5, [0, 1, 2, 3, 4], [0] * 5),
        (3, 7, [0, 1] * 3, [0, 0, 1, 1, 2, 2]),
        (1000, 4, [0] * 4, [0, 1, 2, 3]),  # of the first classes
    ],
)
def test_grids_of_a_run_show_the_first_seeds_of_the_first_classes(
    num_classes, count, seeds, labels
):
    request = overview(classes(num_classes, count))
    assert (list(request.seeds), list(request.labels)) == (seeds, labels)


@pytest.mark.quick
def test_number_of_steps_that_the_schedule_does_not_have():
    config = base_config()
    config.sampling.num_steps = 8
    with pytest.raises(UserError, match="8 sampling steps: .*'vp' only knows the 4 steps"):
        build.sampler(config)
