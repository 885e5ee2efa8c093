"""The Frechet distance and streamed statistics: reference numbers, closed forms, invariances."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddgan_jax import metrics
from ddgan_jax.errors import UserError
from ddgan_jax.metrics import frechet, statistics
from ddgan_jax.metrics.statistics import Provenance

pytestmark = pytest.mark.quick

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics" / "frechet.npz")
FULL_RANK = ("mix0", "mix1", "shift", "identical")
PROVENANCE = Provenance("tf1", "0" * 64, "cifar10 train", "none")


def rule2048(seed, count, offset):
    """The drawn features of the golden README."""
    z = np.random.default_rng(seed).standard_normal((count, 2048))
    scale = np.exp(-np.arange(2048) / 300) * (1 + offset)
    return np.abs(z * scale + 0.3 * offset).astype(np.float32)


def golden_sets(case):
    if case.startswith("rule2048"):
        seed, counts = int(GOLDEN["rule2048_seed"]), GOLDEN["rule2048_n"]
        a, b = rule2048(seed, counts[0], 0.0), rule2048(seed + 1, counts[1], 0.5)
        a64, b64 = a.astype(np.float64), b.astype(np.float64)
        check = [a64.sum(), np.square(a64).sum(), b64.sum(), np.square(b64).sum()]
        np.testing.assert_allclose(check, GOLDEN["rule2048_check"], rtol=1e-12)
    else:
        name = {"identical": "mix0"}.get(case, case.removesuffix("_identical"))
        a, b = GOLDEN[f"{name}_a"], GOLDEN[f"{name}_b"]
    return (a, a) if case.endswith("identical") else (a, b)


def moments(features):
    return features.mean(0, dtype=np.float64), np.cov(features.astype(np.float64), rowvar=False)


def features(count, dim, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, dim)) @ random.standard_normal((dim, dim)) + seed


# ---- the distance


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_reference(case):
    """The truth to 1e-9, of sets with fewer examples than features and of equal sets too."""
    a, b = golden_sets(case)
    scale = float(a.var(0).sum() + b.var(0).sum())
    ours = metrics.frechet_distance(a, b)
    assert ours == pytest.approx(float(GOLDEN[f"{case}_exact"]), rel=1e-9, abs=1e-12 * scale)
    if case in FULL_RANK:
        for method in ("ptfid", "tf_f64", "symeig", "nuclear"):
            reference = float(GOLDEN[f"{case}_{method}"])
            assert ours == pytest.approx(reference, rel=1e-9, abs=1e-9 * scale)


@pytest.mark.parametrize("case", [c for c in GOLDEN["cases"] if "2048" not in c])
def test_reference_from_statistics(case):
    """As exact from covariances, singular ones too, although their rank must be guessed there."""
    a, b = golden_sets(case)
    scale = float(a.var(0).sum() + b.var(0).sum())
    ours = metrics.frechet_distance_from_statistics(*moments(a), *moments(b))
    assert ours == pytest.approx(float(GOLDEN[f"{case}_exact"]), rel=1e-9, abs=1e-12 * scale)


def test_reference_statistics():
    given = [GOLDEN[f"mix0_{name}"] for name in ("mu_a", "sigma_a", "mu_b", "sigma_b")]
    ours = metrics.frechet_distance_from_statistics(*given)
    assert ours == pytest.approx(float(GOLDEN["mix0_exact"]), rel=1e-9)


def test_commuting_gaussians():
    """Of equal axes: |mu|^2 + sum (sqrt s_a - sqrt s_b)^2."""
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.standard_normal((6, 6)))[0]
    s_a, s_b = random.uniform(0, 9, (2, 6))
    s_b[:2] = 0  # a degenerate Gaussian is one too
    mu_a, mu_b = random.standard_normal((2, 6))
    expected = np.square(mu_a - mu_b).sum() + np.square(np.sqrt(s_a) - np.sqrt(s_b)).sum()
    ours = metrics.frechet_distance_from_statistics(
        mu_a, axes @ np.diag(s_a) @ axes.T, mu_b, axes @ np.diag(s_b) @ axes.T
    )
    assert ours == pytest.approx(expected, rel=1e-12)


def test_gaussians_of_the_plane():
    """Of any axes, in two dimensions: tr sqrt(S) = sqrt(tr S + 2 sqrt(det S))."""
    sigma_a, sigma_b = (np.cov(features(9, 2, seed), rowvar=False) for seed in (2, 3))
    assert np.abs(sigma_a @ sigma_b - sigma_b @ sigma_a).max() > 0.1
    product = sigma_a @ sigma_b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(sigma_a) + np.trace(sigma_b) - 2 * root
    ours = metrics.frechet_distance_from_statistics(np.ones(2), sigma_a, np.ones(2), sigma_b)
    assert ours == pytest.approx(expected, rel=1e-11)


many_and_few = pytest.mark.parametrize("counts", [(50, 70), (7, 9), (7, 70)])


@many_and_few
def test_invariances(counts):
    """Symmetric; the same after a rotation and a shift of both; shifting one adds its square."""
    a, b = features(counts[0], 12, 1), features(counts[1], 12, 2)
    distance = metrics.frechet_distance(a, b)
    assert distance > 1
    assert metrics.frechet_distance(b, a) == pytest.approx(distance, rel=1e-12)
    rotation = np.linalg.qr(features(12, 12, 3))[0]
    assert metrics.frechet_distance(a @ rotation + 5, b @ rotation + 5) == pytest.approx(
        distance, rel=1e-11
    )
    difference = np.square(a.mean(0) - b.mean(0)).sum()
    shifted = metrics.frechet_distance(a, b - b.mean(0) + a.mean(0) + 3)
    assert shifted - 12 * 9 == pytest.approx(distance - difference, rel=1e-11)


@many_and_few
def test_from_features_is_from_statistics(counts):
    a, b = features(counts[0], 12, 1), features(counts[1], 12, 2)
    assert metrics.frechet_distance(a, b) == pytest.approx(
        metrics.frechet_distance_from_statistics(*moments(a), *moments(b)), rel=1e-11
    )


def test_points():
    """Sets without any spread are as far apart as their points, squared."""
    a, b = np.zeros((5, 3)), np.full((4, 3), 2.0)
    assert metrics.frechet_distance(a, b) == pytest.approx(12)
    assert metrics.frechet_distance(a, a) == 0


def test_refuses():
    a = features(5, 3)
    with pytest.raises(UserError, match="at least 2 examples, there are 1"):
        metrics.frechet_distance(a, a[:1])
    with pytest.raises(UserError, match="of 3 and of 2 dimensions"):
        metrics.frechet_distance(a, a[:, :2])
    with pytest.raises(UserError, match="of 3 and of 2 dimensions"):
        metrics.frechet_distance_from_statistics(*moments(a), *moments(a[:, :2]))


# ---- statistics


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("splits", [[], [1], [10, 11, 30], [0, 50]])
def test_any_split_is_one_pass(splits, dtype):
    x = features(50, 6).astype(dtype)
    stats = statistics.empty(6)
    for part in np.split(x, splits):
        stats = statistics.add(stats, part)
    mu, sigma = statistics.mean_and_covariance(stats)
    expected_mu, expected_sigma = moments(x)
    assert stats.count == 50
    np.testing.assert_allclose(mu, expected_mu, rtol=1e-12)
    np.testing.assert_allclose(sigma, expected_sigma, rtol=1e-10, atol=1e-12)


def test_merge_is_of_both_sets():
    x = features(20, 4)
    parts = [statistics.add(statistics.empty(4), part) for part in (x[:3], x[3:])]
    for merged in (statistics.merge(*parts), statistics.merge(*parts[::-1])):
        np.testing.assert_allclose(
            statistics.mean_and_covariance(merged)[1], moments(x)[1], rtol=1e-10
        )


def test_adding_leaves_the_old_statistics():
    before = statistics.empty(2)
    statistics.add(before, np.ones((3, 2)))
    assert before.count == 0 and not before.total.any() and not before.outer.any()


def test_file(tmp_path):
    path = tmp_path / "folder" / "train.npz"
    stats = statistics.add(statistics.empty(4), features(20, 4))
    statistics.save(path, stats, PROVENANCE)
    saved = statistics.load(path)
    mu, sigma = statistics.mean_and_covariance(stats)
    np.testing.assert_array_equal(saved.mu, mu)
    np.testing.assert_array_equal(saved.sigma, sigma)
    assert (saved.count, saved.provenance) == (20, PROVENANCE)
    assert [p.name for p in path.parent.iterdir()] == ["train.npz"]


def test_file_that_is_none(tmp_path):
    missing, foreign, text, cut = (tmp_path / f"{i}.npz" for i in range(4))
    np.savez(foreign, mu=np.zeros(2), sigma=np.eye(2))
    text.write_text("mu")
    statistics.save(cut, statistics.add(statistics.empty(4), features(9, 4)), PROVENANCE)
    cut.write_bytes(cut.read_bytes()[:-40])
    for path, message in (
        (missing, "cannot read .*0.npz: there is no such file"),
        (
            foreign,
            "1.npz holds no feature statistics of ours, .* it has no n, provenance, features",
        ),
        (text, "2.npz is no .npy or .npz file of arrays"),
        (cut, "3.npz is no .npy or .npz file of arrays"),
    ):
        with pytest.raises(UserError, match=message):
            statistics.load(path)


def test_statistics_of_one_example_are_not_saved(tmp_path):
    stats = statistics.add(statistics.empty(4), features(1, 4))
    with pytest.raises(UserError, match="at least 2 examples"):
        statistics.save(tmp_path / "one.npz", stats, PROVENANCE)


@pytest.mark.parametrize("field", ["protocol", "weights_sha256", "preprocessing"])
def test_other_provenance_is_refused(field):
    other = PROVENANCE._replace(**{field: "another"}, dataset="samples")
    with pytest.raises(UserError, match=f"of cifar10 train and of samples .*: {field} .* another"):
        statistics.require_comparable(PROVENANCE, other)


def test_another_data_set_is_compared():
    statistics.require_comparable(PROVENANCE, PROVENANCE._replace(dataset="samples"))


# ---- the package


def test_names_are_found_when_used():
    """In any order, and importing the package alone loads neither numpy nor JAX."""
    program = """
import sys
from ddgan_jax import metrics
metrics.names
assert not {"numpy", "jax"} & set(sys.modules)
for name in reversed(metrics.__all__):
    for _ in range(2):
        value = getattr(metrics, name)
        assert callable(value) or name in ("inception", "names", "statistics"), name
    if name == "inception_score":
        assert "jax" not in sys.modules
assert callable(metrics.inception.features)
try:
    metrics.no_such_metric
except AttributeError as error:
    assert "no_such_metric" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("smallest", [1.0, 1e-2, 3e-6])
def test_both_ways_to_the_trace_agree(smallest, monkeypatch):
    """Cholesky and eigenvalues where these are above rounding, singular values otherwise."""
    random = np.random.default_rng(3)
    scales = np.geomspace(smallest, 1, 32)

    def covariance():
        rotation = np.linalg.qr(random.standard_normal((32, 32)))[0]
        return (rotation * scales) @ rotation.T

    mu, (a, b) = np.zeros(32), (covariance(), covariance())
    pairs = [(a, b), (a, a)]
    quick = [frechet.frechet_distance_from_statistics(mu, x, mu, y) for x, y in pairs]
    monkeypatch.setattr(frechet, "_FAR_FROM_SINGULAR", np.inf)
    monkeypatch.setattr(frechet, "_ABOVE_ROUNDING", np.inf)
    exact = [frechet.frechet_distance_from_statistics(mu, x, mu, y) for x, y in pairs]
    np.testing.assert_allclose(quick, exact, rtol=0, atol=1e-10 * np.trace(a))


@pytest.mark.parametrize("dim", [10, 20, 40, 60])
def test_pivots_that_hide_a_singular_covariance(dim):
    """Kahan's triangle: its smallest singular value is far below the smallest of its pivots."""
    sine, cosine = np.sin(1.2), np.cos(1.2)
    above = np.triu(np.ones((dim, dim)), 1)
    factor = sine ** np.arange(dim)[:, None] * (np.eye(dim) - cosine * above)
    mu, sigma = np.zeros(dim), factor.T @ factor
    distance = frechet.frechet_distance_from_statistics(mu, sigma, mu, sigma)
    assert abs(distance) < 1e-10 * np.trace(sigma)
