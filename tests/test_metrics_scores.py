"""Inception Score, kernel distance and mode counts: reference numbers and laws."""

import math
from pathlib import Path

import numpy as np
import pytest

from ddgan_jax import metrics
from ddgan_jax.errors import UserError
from ddgan_jax.metrics import kernel

pytestmark = pytest.mark.quick

FOLDER = Path(__file__).parent / "golden" / "metrics"
SCORE = np.load(FOLDER / "inception_score.npz")
KID = np.load(FOLDER / "kid.npz")
MODES = np.load(FOLDER / "stacked_mnist.npz")

# ---- Inception Score

LOGITS = SCORE["logits_times16"] / np.float32(16)
SHUFFLED = np.random.RandomState(2020).permutation(len(LOGITS))


@pytest.mark.parametrize("splits", SCORE["splits"])
def test_inception_score_reference(splits):
    np.testing.assert_array_equal(SHUFFLED[:10], SCORE["perm2020_first10"])
    variants = {
        "tf_shuffle0": LOGITS,
        "tf_shuffle1": LOGITS[SHUFFLED],
        "first1000": LOGITS[:, :1000],
    }
    for name, logits in variants.items():
        ours = metrics.inception_score(logits, int(splits))
        np.testing.assert_allclose(ours, SCORE[f"{name}_splits{splits}"], rtol=1e-10, atol=1e-12)


def test_inception_score_of_chunks():
    """ADM's way: chunks of equal size, the last one shorter."""
    chunks = [LOGITS[i : i + 100] for i in range(0, len(LOGITS), 100)]
    scores = [metrics.inception_score(chunk, splits=1)[0] for chunk in chunks]
    np.testing.assert_allclose([np.mean(scores), np.std(scores)], SCORE["chunk100"], rtol=1e-10)


def test_inception_score_bounds():
    """1 for a network that knows nothing, the number of classes for one that is sure of each."""
    ignorant = metrics.inception_score(np.full((20, 1008), 3.0))
    assert ignorant == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    sure = np.tile(np.eye(10) * 1e4, (20, 1))  # probabilities that underflow to 0
    assert metrics.inception_score(sure) == (pytest.approx(10), pytest.approx(0, abs=1e-9))
    np.testing.assert_allclose(ignorant, SCORE["uniform_logits_is"], atol=1e-9)
    np.testing.assert_allclose(metrics.inception_score(sure), SCORE["onehot10_is"], atol=1e-9)


def test_inception_score_ignores_a_common_offset():
    """Softmax does; float32 logits of 1e4 would otherwise overflow."""
    np.testing.assert_allclose(
        metrics.inception_score(LOGITS[:200].astype(np.float64) + 1e4),
        metrics.inception_score(LOGITS[:200]),
        rtol=1e-9,
    )


@pytest.mark.parametrize("splits", [0, 4])
def test_inception_score_refuses(splits):
    with pytest.raises(UserError, match=f"of 3 images cannot have {splits} splits"):
        metrics.inception_score(LOGITS[:3], splits)


# ---- kernel distance


def test_kernel_distance_reference():
    a, b = KID["a"], KID["b"]
    least = min(len(a), len(b))
    for name, x, y in (
        ("unbiased_full", a, b),
        ("unbiased_equal_n", a[:least], b[:least]),
        ("unbiased_identical", a, a),
    ):
        assert metrics.kernel_distance(x, y) == pytest.approx(float(KID[name]), rel=1e-10), name


def test_kernel_reference():
    """With pairs of an example with itself: the kernel alone."""
    a, b = KID["a"], KID["b"]
    k = kernel.polynomial_kernel
    biased = k(a, a).mean() + k(b, b).mean() - 2 * k(a, b).mean()
    assert biased == pytest.approx(float(KID["biased_full"]), rel=1e-10)


@pytest.mark.parametrize(("subsets", "size"), [(20, 50), (7, 90)])
def test_kernel_distance_of_subsets_reference(subsets, size):
    a, b = KID["a"], KID["b"]
    ours = metrics.kernel_distance_of_subsets(a, b, subsets=subsets, size=size)
    np.testing.assert_allclose(ours, KID[f"tf_float64_{subsets}x{size}"], rtol=1e-9)
    # The reference in float32 rounds the same subsets.
    np.testing.assert_allclose(ours, KID[f"tf_float32_{subsets}x{size}"], rtol=1e-3)


def test_kernel_distance_is_of_sets(monkeypatch):
    """Symmetric, whatever the order of examples and the rows held at a time."""
    a, b = KID["a"], KID["b"]
    value = metrics.kernel_distance(a, b)
    order = np.random.default_rng(0).permutation(len(a))
    assert metrics.kernel_distance(b, a[order]) == pytest.approx(value, rel=1e-10)
    monkeypatch.setattr(kernel, "_ROWS", 7)
    assert metrics.kernel_distance(a, b) == pytest.approx(value, rel=1e-10)


def test_kernel_distance_of_points():
    """Two points x, y, each many times: k(x, x) + k(y, y) - 2 k(x, y)."""
    x, y = np.array([1.0, 2.0]), np.array([0.0, 4.0])
    value = metrics.kernel_distance(np.tile(x, (3, 1)), np.tile(y, (5, 1)))
    assert value == pytest.approx(3.5**3 + 9**3 - 2 * 5**3)


def test_kernel_distance_is_unbiased():
    """Small sets of one distribution average zero; with the diagonal they would not."""
    random = np.random.default_rng(0)
    pairs = [(random.standard_normal((6, 3)), random.standard_normal((9, 3))) for _ in range(2000)]
    values = [metrics.kernel_distance(a, b) for a, b in pairs]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    k = kernel.polynomial_kernel
    biased = [k(a, a).mean() + k(b, b).mean() - 2 * k(a, b).mean() for a, b in pairs]
    assert np.mean(biased) > 20 * error


def test_kernel_distance_refuses():
    a = KID["a"]
    with pytest.raises(UserError, match=f"2 examples or more, there are {len(a)} and 1"):
        metrics.kernel_distance(a, a[:1])
    with pytest.raises(UserError, match=f"subsets of 1000, there are {len(a)} and 4"):
        metrics.kernel_distance_of_subsets(a, a[:4])


# ---- modes


@pytest.mark.parametrize("case", ["uniform", "skewed", "missing"])
def test_mode_statistics_reference(case):
    ours = metrics.mode_statistics(MODES[f"{case}_labels"], 1000)
    assert ours.modes == MODES[f"{case}_modes"]
    assert ours.kl == pytest.approx(float(MODES[f"{case}_kl_p_uniform"]), rel=1e-10)
    # The other direction, infinite as soon as a mode is missing, is not the one reported.
    assert np.isinf(MODES[f"{case}_kl_uniform_p"]) == (ours.modes < 1000)


def test_mode_statistics_extremes():
    assert metrics.mode_statistics(np.full(7, 3), 10) == (1, pytest.approx(math.log(10)))
    assert metrics.mode_statistics(np.arange(30) % 10, 10) == (10, pytest.approx(0, abs=1e-15))


@pytest.mark.parametrize("labels", [[], [0, 10], [-1, 3]])
def test_mode_statistics_refuses(labels):
    with pytest.raises(UserError, match="labels in 0 .. 9, at least one"):
        metrics.mode_statistics(np.array(labels, int), 10)
