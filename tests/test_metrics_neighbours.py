"""Precision, recall, density and coverage: reference numbers, laws of sets, blocks."""

from pathlib import Path

import numpy as np
import pytest

from ddgan_jax import metrics
from ddgan_jax.errors import UserError
from ddgan_jax.metrics import neighbours
from tests.test_metrics_frechet import rule2048

pytestmark = pytest.mark.quick

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics" / "prdc.npz")
CASES = sorted(key.removesuffix("_density") for key in GOLDEN if key.endswith("_density"))
BLOCKS = (neighbours.BLOCK, 64)


def golden_sets(name):
    if name != "rule2048":
        return GOLDEN[f"{name}_real"], GOLDEN[f"{name}_fake"]
    seed, counts = int(GOLDEN["rule2048_seed"]), GOLDEN["rule2048_n"]
    return rule2048(seed, counts[0], 0.0), rule2048(seed + 1, counts[1], 0.012)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
def test_reference(case, block):
    """Exactly: these are counts. Ties and a large common offset included, in blocks or at once."""
    name, k = case[:-3], int(case[-1])
    real, fake = golden_sets(name)
    precision, recall = metrics.precision_recall(real, fake, k, block=block)
    assert precision == pytest.approx(float(GOLDEN[f"{case}_le_precision"]), abs=1e-12)
    assert recall == pytest.approx(float(GOLDEN[f"{case}_le_recall"]), abs=1e-12)
    density, coverage = metrics.density_coverage(real, fake, k, block=block)
    assert density == pytest.approx(float(GOLDEN[f"{case}_density"]), abs=1e-12)
    assert coverage == pytest.approx(float(GOLDEN[f"{case}_coverage"]), abs=1e-12)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES)
def test_reference_of_single_examples(case, block):
    """Radii, which examples are inside, and the counts with the other kind of ball."""
    name, k = case[:-3], int(case[-1])
    real, fake = golden_sets(name)
    centre = real.mean(0, dtype=np.float64)
    radii = [neighbours.neighbour_radii(x, k, centre=centre, block=block) for x in (real, fake)]
    np.testing.assert_allclose(radii[0], GOLDEN[f"{case}_radii_real"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(radii[1], GOLDEN[f"{case}_radii_fake"], rtol=1e-9, atol=1e-9)

    def count(points, centres, radii, closed):
        return neighbours.count_in_balls(
            points, centres, radii, closed=closed, centre=centre, block=block
        )

    holders, held = count(fake, real, radii[0], closed=True)
    np.testing.assert_array_equal(holders > 0, GOLDEN[f"{case}_in_precision"])
    assert holders.mean() / k == pytest.approx(float(GOLDEN[f"{case}_density_le"]), abs=1e-12)
    assert (held > 0).mean() == pytest.approx(float(GOLDEN[f"{case}_coverage_le"]), abs=1e-12)
    in_fake, _ = count(real, fake, radii[1], closed=True)
    np.testing.assert_array_equal(in_fake > 0, GOLDEN[f"{case}_in_recall"])

    for (points, centres, r), share in (
        ((fake, real, radii[0]), "lt_precision"),
        ((real, fake, radii[1]), "lt_recall"),
    ):
        inside, _ = count(points, centres, r, closed=False)
        assert (inside > 0).mean() == pytest.approx(float(GOLDEN[f"{case}_{share}"]), abs=1e-12)


def test_equal_and_disjoint_sets():
    x = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    assert metrics.precision_recall(x, x) == (1, 1)
    assert metrics.precision_recall(x, x[::-1]) == (1, 1)
    # Each ball of k neighbours holds, open, the point itself and k - 1 others.
    assert metrics.density_coverage(x, x) == (pytest.approx(1), 1)
    assert metrics.precision_recall(x, x + 100) == (0, 0)
    assert metrics.density_coverage(x, x + 100) == (0, 0)


def test_half_of_the_modes():
    """Fakes of one of two modes are all precise and recall a half."""
    random = np.random.default_rng(0)
    mode = random.standard_normal((100, 4))
    real = np.concatenate([mode, mode + 50])
    fake = mode + 1e-3 * random.standard_normal(mode.shape)
    assert metrics.precision_recall(real, fake) == (1, 0.5)
    assert metrics.precision_recall(fake, real) == (0.5, 1)
    assert metrics.density_coverage(real, fake).coverage == 0.5


def test_invariances():
    """Order, common shift and scale do not matter."""
    random = np.random.default_rng(0)
    real, fake = random.standard_normal((80, 6)), 0.8 * random.standard_normal((70, 6))
    for function in (metrics.precision_recall, metrics.density_coverage):
        value = function(real, fake)
        assert value[0] > 0 and 0 < value[1] < 1
        shuffled = random.permutation(real), random.permutation(fake)
        assert function(*shuffled) == pytest.approx(value)
        assert function(real * 3 + 1e4, fake * 3 + 1e4) == pytest.approx(value)


@pytest.mark.parametrize("function", [metrics.precision_recall, metrics.density_coverage])
def test_refuses(function):
    x = np.eye(4)
    with pytest.raises(UserError, match="4 neighbours need more than 4 examples, there are 4"):
        function(x, np.eye(7)[:, :4], 4)
