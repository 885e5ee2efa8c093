"""Metrics of 25 Gaussians in the plane, on sets whose faults are known.

The mixture is that of the SIDDM experiment: centres 5 apart, noise of N(0, 1/9) cut at three
standard deviations in each coordinate.
"""

import math

import numpy as np
import pytest

from ddgan_jax import metrics

pytestmark = pytest.mark.quick

CENTRES = np.array([(5.0 * i, 5.0 * j) for i in range(5) for j in range(5)])
PER_MODE = 10_000
GRID = np.arange(25).reshape(5, 5)


def noise(shape, seed=0):
    return np.clip(np.random.default_rng(seed).standard_normal(shape) / 3, -1, 1)


def mixture(modes=range(25), scale=1.0, seed=0):
    centres = np.repeat(CENTRES[list(modes)], PER_MODE, axis=0)
    return centres + scale * noise(centres.shape, seed)


def without(*modes):
    return sorted(set(range(25)) - set(modes))


@pytest.fixture(scope="module")
def real():
    return mixture()


def broad_gaussian(real, seed=1):
    z = np.random.default_rng(seed).standard_normal(real.shape)
    return real.mean(0) + z @ np.linalg.cholesky(np.cov(real, rowvar=False)).T


# ---- each number


def test_real_mixture(real):
    stats = metrics.mixture_statistics(real, CENTRES)
    assert (stats.modes_any, stats.modes_covered) == (25, 25)
    assert stats.high_quality_share == pytest.approx(0.989, abs=0.001)
    assert stats.kl_to_uniform == pytest.approx(0, abs=1e-12)
    assert stats.within_mode_std == pytest.approx(0.324, abs=0.001)


def test_single_gaussian_of_the_same_moments(real):
    """The Frechet distance of the coordinates does not see it; these numbers do."""
    fake = broad_gaussian(real)
    assert metrics.frechet_distance(real, fake) < 0.01
    stats = metrics.mixture_statistics(fake, CENTRES)
    assert stats.high_quality_share == pytest.approx(0.107, abs=0.003)
    assert stats.kl_to_uniform > 0.05


def test_uniform_over_the_box():
    """The share of a disc of radius 1 in a cell of 5 x 5: pi / 25."""
    box = np.random.default_rng(0).uniform(-2.5, 22.5, (100_000, 2))
    stats = metrics.mixture_statistics(box, CENTRES)
    assert stats.high_quality_share == pytest.approx(math.pi / 25, abs=0.004)
    assert stats.modes_covered == 25
    assert stats.within_mode_std == pytest.approx(0.5, abs=0.005)  # of a uniform disc


def test_point_mass():
    stats = metrics.mixture_statistics(np.full((1000, 2), 10.5), CENTRES)
    assert stats == (1, 1, 1.0, pytest.approx(math.log(25)), 0.0)


def test_missing_mode():
    stats = metrics.mixture_statistics(mixture(without(12)), CENTRES)
    assert (stats.modes_any, stats.modes_covered) == (24, 24)
    assert stats.kl_to_uniform == pytest.approx(math.log(25 / 24), abs=1e-12)


def test_covered_from_a_twentieth_of_the_fair_share():
    """2 of 1000 samples are 0.2 %; those of a mode that are not of high quality do not count."""
    samples = np.repeat(CENTRES[[0]], 1000, axis=0)
    samples[1:3] = CENTRES[1]
    samples[3:4] = CENTRES[2]
    samples[4:9] = CENTRES[3] + [1.01, 0]
    samples[9:11] = CENTRES[4] + [1, 0]  # on the radius: inside
    stats = metrics.mixture_statistics(samples, CENTRES)
    assert (stats.modes_any, stats.modes_covered) == (4, 3)
    assert stats.high_quality_share == 0.995
    p = np.array([990, 2, 1, 5, 2]) / 1000
    assert stats.kl_to_uniform == pytest.approx((p * np.log(25 * p)).sum())


def test_radius_and_spread():
    """Modes that are off their centres are no sharper or broader for it."""
    offset = [0.3, -0.2]
    std = noise((PER_MODE, 2)).std()
    for scale in (0.5, 1.0):
        stats = metrics.mixture_statistics(mixture(scale=scale) + offset, CENTRES, radius=2.4)
        assert stats.high_quality_share == 1
        assert stats.within_mode_std == pytest.approx(scale * std, rel=0.01)


def test_nothing_near_a_centre():
    stats = metrics.mixture_statistics(np.full((10, 2), 2.5), CENTRES)
    assert (stats.modes_any, stats.modes_covered, stats.high_quality_share) == (0, 0, 0)
    assert math.isnan(stats.within_mode_std)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(value):
    with pytest.raises(ValueError, match="NaN or infinity"):
        metrics.mixture_statistics(np.array([[0.0, value]]), CENTRES)


# ---- what the Frechet distance says of the same sets: published measurements


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (without(0), 0.595),
        (without(12), 0.044),
        (without(*GRID[[0, 0, -1, -1], [0, -1, 0, -1]]), 0.97),
        (without(*GRID[0]), 8.33),
        (GRID[[0, 0, -1, -1], [0, -1, 0, -1]], 17.25),
    ],
)
def test_frechet_distance_of_missing_modes(real, modes, expected):
    # They were taken with as many samples at random modes: 4 % of noise in the small ones.
    distance = metrics.frechet_distance(real, mixture(modes, seed=1))
    assert distance == pytest.approx(expected, rel=0.06)


def test_frechet_distance_of_good_and_of_hopeless_sets(real):
    assert metrics.frechet_distance(real, mixture(seed=1)) < 1e-3
    assert metrics.frechet_distance(real, mixture(scale=0)) < 1e-3
    variance = np.trace(np.cov(real, rowvar=False))
    assert variance == pytest.approx(100.2, abs=0.05)
    point = np.tile(real.mean(0), (10, 1))
    assert metrics.frechet_distance(real, point) == pytest.approx(variance)
    prior = np.random.default_rng(1).standard_normal(real.shape)
    assert metrics.frechet_distance(real, prior) == pytest.approx(273.7, abs=0.5)
