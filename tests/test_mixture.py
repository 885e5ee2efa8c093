"""The 25 Gaussians: moments that follow from their definition, and sets that map back."""

import math

import numpy as np
import pytest

from ddgan_jax import data
from ddgan_jax.data import mixture
from ddgan_jax.experiments.mog25_cells import cell_config

pytestmark = pytest.mark.quick

POINTS, LABELS = mixture.points()
# The variance of a Gaussian of standard deviation 1/3 whose tails beyond 3 of them are moved to the
# cut: 1/9 of (mass within) - 2 * 3 * density(3) + 9 * (mass beyond).
_BEYOND = math.erfc(3 / math.sqrt(2))
_DENSITY = math.exp(-4.5) / math.sqrt(2 * math.pi)
VARIANCE = (1 - _BEYOND - 6 * _DENSITY + 9 * _BEYOND) / 9


def test_centres_are_a_grid():
    expected = {(x, y) for x in (0, 5, 10, 15, 20) for y in (0, 5, 10, 15, 20)}
    assert {tuple(centre) for centre in mixture.centres()} == expected
    assert mixture.centres().shape == (25, 2)


def test_points_lie_about_their_centres():
    """10,000 each, within 1 of it in each coordinate, of the right mean and deviation."""
    assert POINTS.shape == (250_000, 2) and (np.bincount(LABELS) == 10_000).all()
    offsets = POINTS - mixture.centres()[LABELS]
    assert np.abs(offsets).max() == pytest.approx(1, abs=1e-12)  # the cut is reached
    error = 5 * math.sqrt(VARIANCE / 10_000)
    for label in range(25):
        assert np.abs(offsets[label == LABELS].mean(0)).max() < error
    error = 5 * math.sqrt(VARIANCE / 2 / offsets.size)
    assert offsets.std() == pytest.approx(math.sqrt(VARIANCE), abs=error)
    assert math.sqrt(VARIANCE) == pytest.approx(0.3325, abs=1e-4)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 5 / math.sqrt(len(offsets))


def test_moments_of_the_whole():
    """Mean 10; variance of the grid, 50, and of a mode."""
    np.testing.assert_allclose(POINTS.mean(0), 10, atol=5 * math.sqrt(VARIANCE / 250_000))
    # The centres are balanced exactly: what scatters is 2 cov(centre, offset).
    error = 5 * 2 * math.sqrt(50 * VARIANCE / 250_000)
    np.testing.assert_allclose(np.cov(POINTS.T), (50 + VARIANCE) * np.eye(2), atol=error)


def test_points_are_the_same_in_every_run():
    again, labels = mixture.points()
    np.testing.assert_array_equal(again, POINTS)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("name", mixture.SETS)
def test_stored_points_map_back(name):
    stored = mixture.to_set(name, POINTS[::100])
    assert stored.shape == (2_500, 1, 1, 2) and stored.dtype == np.float32
    back = mixture.from_set(name, stored)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, POINTS[::100], atol=2e-6)  # float32 of numbers up to 21
    offset, scale = mixture.SETS[name]
    np.testing.assert_allclose(mixture.to_set(name, np.full((1, 2), offset)), 0, atol=1e-7)
    np.testing.assert_allclose(mixture.to_set(name, np.full((1, 2), offset + scale)), 1, rtol=1e-6)


@pytest.mark.parametrize("name", mixture.SETS)
def test_data_set(name):
    """As the run opens it: floats that are not scaled again, and the centre as the label."""
    config = cell_config("siddm", 4)
    config.data.name = name
    dataset = data.open_dataset(config)
    info = dataset.info
    assert (info.num_examples, info.image_size, info.channels) == (250_000, 1, 2)
    ids = np.array([0, 9_999, 10_000, 249_999])
    points, labels = dataset.read(ids)
    np.testing.assert_array_equal(labels, [0, 0, 1, 24])
    np.testing.assert_array_equal(points, mixture.to_set(name, POINTS[ids]))
