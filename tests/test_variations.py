"""What else a few steps can do: mixed noise, another's latents, a given image, every step."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ddgan_jax import build, models, pixels, sampling
from ddgan_jax.config import base_config, diffused_shape
from ddgan_jax.errors import UserError
from ddgan_jax.inference import drawing
from ddgan_jax.inference.drawing import Request
from ddgan_jax.inference.model import Model
from ddgan_jax.models import registry
from ddgan_jax.sampling import Noise, Variation
from tests.methods import SMALLEST, config_of, random_params

SEEDS = [4, 11, 2]


@pytest.fixture(scope="module", params=SMALLEST)
def model(request):
    """DDGAN, WaveDiff, and SIDDM with classes; in three steps."""
    config = config_of(request.param, sampling__chunk_size=3, diffusion__num_timesteps=3)
    template = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))[0]
    return Model(config, random_params(template), 0, "ema", {})


# ---- between two seeds


def test_ends_of_an_interpolation_are_the_images_of_its_seeds(model):
    label = 3 if model.config.data.num_classes else None
    between = model.interpolate(4, 11, 5, label)
    ends = model.sample([4, 11], label)
    np.testing.assert_array_equal(between[[0, -1]], ends)
    distances = np.abs(between.astype(int) - ends[0]).reshape(5, -1).mean(1)
    assert (np.diff(distances) > 0).all()


def test_between_a_seed_and_itself_there_is_nothing_else(model):
    between = model.interpolate(4, 4, 3)
    # Weights that add up to one give the same noise but for its last bits.
    assert np.abs(between.astype(int) - between[0]).max() <= 1


def normal_noise(seed, shape=(2_000, 4, 4, 1)):
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal((*n, *shape)).astype("f4") for n in ((), (2,), (2,))]
    return Noise(*parts)


@pytest.mark.quick
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_mixed_noise_is_as_long_as_noise(weight):
    """The squared length of 16 normal numbers, 16 on average; the plain mean would have 8."""
    weights = np.full(2_000, weight, np.float32)
    mixed = sampling.mix(normal_noise(0), normal_noise(1), weights, "normal")
    for part in mixed:
        length = np.square(np.asarray(part)).sum((-1, -2, -3)).mean()
        assert abs(length - 16) < 16 * 5 * np.sqrt(2 / 16 / 2_000)


@pytest.mark.quick
def test_mixed_noise_moves_at_constant_speed():
    """Quarter the angle at a quarter of the way, for each image and each step by itself."""
    a, b = normal_noise(0), normal_noise(1)

    def angles(x, y):
        x, y = (np.asarray(n.posterior, np.float64).reshape(2, 2_000, -1) for n in (x, y))
        lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
        return np.arccos((x * y).sum(-1) / lengths)

    # Of equal lengths, for which the circle is round.
    b = b._replace(
        posterior=b.posterior
        * np.linalg.norm(a.posterior, axis=(-3, -2), keepdims=True)
        / np.linalg.norm(b.posterior, axis=(-3, -2), keepdims=True)
    )
    weights = np.linspace(0, 1, 2_000, dtype=np.float32)
    between = sampling.mix(a, b, weights, "normal")
    np.testing.assert_allclose(angles(a, between), weights * angles(a, b), atol=2e-3)


@pytest.mark.quick
@pytest.mark.parametrize("latent", ["uniform", "none"])
def test_other_latents_move_on_a_line(latent):
    rng = np.random.default_rng(0)
    a, b = (normal_noise(i)._replace(z=rng.random((2, 5, 3)).astype("f4")) for i in (0, 1))
    weights = np.linspace(0, 1, 5, dtype=np.float32)
    a, b = (Noise(n.x_T[:5], n.z, n.posterior[:, :5]) for n in (a, b))
    z = sampling.mix(a, b, weights, latent).z
    expected = a.z + weights[None, :, None] * (b.z - a.z)
    np.testing.assert_allclose(z, expected, atol=1e-6)


# ---- latents of another seed


def test_own_latents_change_nothing_and_those_of_another_do(model):
    own = model.sample(SEEDS)
    lent = model.sample(SEEDS, latent_seed=SEEDS[1])
    same = [np.array_equal(a, b) for a, b in zip(own, lent, strict=True)]
    assert same == [False, True, False]
    assert len({image.tobytes() for image in lent}) == 3


# ---- every step, and those from the middle on


def test_last_step_of_a_trajectory_is_the_image(model):
    trajectory = model.trajectory(SEEDS)
    assert trajectory.x_t.shape == (3, 3, 8, 8, 1)
    np.testing.assert_array_equal(pixels.to_uint8(trajectory.x_t[:, -1]), model.sample(SEEDS))
    # The last step returns its prediction.
    np.testing.assert_allclose(trajectory.x_t[:, -1], trajectory.x_0[:, -1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("start", [1, 2])
def test_chain_entered_where_it_was_left(model, start):
    """From what a step has arrived at, the others arrive at the same."""
    request = model.request(SEEDS)
    inputs = (np.asarray(request.seeds), np.asarray(request.labels))
    sampler = build.sampler(model.config)
    whole = jax.jit(sampler)(model.params, *inputs)
    left = sampler.space.encode(whole.x_t[start - 1])
    noise = sampler.noise(inputs[0])._replace(x_T=left)
    denoise = jax.jit(functools.partial(sampler.denoise, start=start))
    rest = sampler.images(denoise(model.params, noise, inputs[1]))
    for ours, expected in zip(rest, whole, strict=True):
        assert len(ours) == 3 - start
        np.testing.assert_allclose(ours, expected[start:], atol=1e-5)


# ---- a given image


def test_the_later_an_image_enters_the_less_it_changes(model, monkeypatch):
    """With a generator that believes what it sees, so that only the noise of the entry counts."""
    channels = diffused_shape(model.config)[-1]

    def believe(variables, x, *rest, **dropout):
        return x[..., :channels]

    monkeypatch.setattr(registry, "build_generator", lambda config: SimpleNamespace(apply=believe))
    given = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
    fresh = model.with_sampling(chunk_size=300)
    fresh.config.objective.prediction = "x_t"
    schedule = build.schedule(model.config)
    steps = schedule.sampling_transitions()
    x_0 = given / 127.5 - 1
    for start in (1, 2):
        request = fresh.request(range(300))
        entered = drawing.concatenate(
            fresh.draw(request, Variation(x_0=np.float32(x_0)), start=start, trajectory=True)
        ).x_t[:, 0]
        residue = entered - np.float64(steps.next_signal[start]) * x_0
        # Noise on bands, which are half of the orthonormal ones, is twice as large on the pixels.
        scale = 2 if model.config.diffusion.space == "haar" else 1
        noise = scale * np.float64(steps.next_noise[start])
        error = 5 / np.sqrt(residue.size)
        assert abs(residue.mean()) < error * noise
        assert abs(residue.std() - noise) < error * noise
        assert abs((residue * x_0).mean()) < error * noise


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(SEEDS, start=1), "`start=1`: only a given image can enter the chain"),
        (
            lambda m: m.sample(SEEDS, images=np.zeros((3, 8, 8, 1)), start=3),
            "`start=3`: the steps are 0 to 2",
        ),
        (
            lambda m: m.sample(SEEDS, images=np.zeros((2, 8, 8, 1)), start=1),
            r"`images` of shape \(2, 8, 8, 1\), the model wants \(3, 8, 8, 1\)",
        ),
        (lambda m: m.sample(SEEDS, labels=10), "^`labels`: "),
    ],
)
def test_what_a_model_cannot_do(model, call, message):
    with pytest.raises(UserError, match=message):
        call(model)


# ---- how models are asked


def test_labels_of_a_request():
    config = base_config()
    config.data.num_classes = 10
    model = Model(config, {}, 0, "ema", {})
    for labels, expected in ((None, [4, 1, 2]), (7, [7, 7, 7]), ([3, 9, 0], [3, 9, 0])):
        seeds, found = model.request(SEEDS, labels)
        assert (list(seeds), list(found)) == (SEEDS, expected)


def test_chunks_are_those_of_the_request(model):
    """Seven images in chunks of 3 x devices, whatever varies from one to the next."""
    request = Request(np.arange(7, dtype=np.uint32), np.zeros(7, np.int32))
    variation = Variation(
        other_seeds=np.arange(7, 14, dtype=np.uint32),
        weights=np.linspace(0, 1, 7, dtype=np.float32),
    )
    together = drawing.concatenate(model.draw(request, variation))
    for i in (0, 3, 6):
        one = jax.tree.map(lambda a, i=i: a[i : i + 1], (request, variation))
        np.testing.assert_array_equal(drawing.concatenate(model.draw(*one)), together[i : i + 1])
