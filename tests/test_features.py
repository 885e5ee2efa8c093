"""Feature networks: laws of each, and the same features from any number of devices and batches."""

import json

import jax
import numpy as np
import pytest

from benchmarks import command, measure
from benchmarks import features as benchmark
from ddgan_jax import metrics
from ddgan_jax.data.datasets import ArrayDataset, DatasetInfo, fingerprint
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import features, inception, reference
from ddgan_jax.evaluation.batching import call_in_batches
from ddgan_jax.evaluation.classifier import Trained, save, sha256
from ddgan_jax.evaluation.gather import gather, in_batches
from ddgan_jax.interop import inception as interop
from ddgan_jax.metrics import names, statistics
from ddgan_jax.models.classifier import init_params
from tests.methods import ROOT, random_params

pytestmark = pytest.mark.quick


def random_images(count, size=8, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


def dataset_of(images, num_classes=10, name="random"):
    labels = np.arange(len(images), dtype=np.int32) % max(num_classes, 1)
    info = DatasetInfo(name, len(images), images.shape[1], images.shape[-1], num_classes)
    return ArrayDataset(info, images, labels)


def silent(line):
    del line


# ---- pixels


@pytest.mark.parametrize(("size", "cells"), [(8, 8), (32, 16), (32, 18), (5, 3), (7, 1)])
def test_cells_are_means(size, cells):
    """Each pixel cut into so many parts that the cells are even, and their plain means."""
    matrix = features.cell_matrix(size, cells)
    x = np.random.default_rng(0).standard_normal(size)
    expected = x.repeat(cells).reshape(cells, size).mean(1)
    np.testing.assert_allclose(matrix @ x, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "channels", "dim"), [(8, 1, 64), (32, 1, 1024), (32, 3, 972)])
def test_pixels(size, channels, dim):
    images = random_images(3, size, channels)
    found = features.pixels(jax.devices()).extract(images)
    assert found.vectors.shape == (3, dim) and found.vectors.dtype == np.float32
    assert found.logits is None
    scaled = images / 127.5 - 1
    np.testing.assert_allclose(found.vectors.mean(1), scaled.mean((1, 2, 3)), atol=1e-6)
    if dim == size**2 * channels:
        np.testing.assert_allclose(found.vectors, scaled.reshape(3, -1), atol=1e-6)


# ---- devices and batches


@pytest.fixture
def classifier_in_cache(tmp_path, monkeypatch):
    """A set whose classifier, of random parameters, is in the cache already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = dataset_of(random_images(300))
    params = random_params(jax.eval_shape(lambda: init_params(jax.random.key(0), (8, 8, 1), 10)))
    about = {"format": "ddgan_jax classifier 1", "dataset": "random", "accuracy": 0.5}
    about |= {"held_out": 30, "weights_sha256": sha256(params)}
    about |= {"images": [8, 8, 1], "classes": 10, "train_steps": 200, "seed": 0}
    name = f"random-{fingerprint(dataset)}-200.npz"
    save(tmp_path / "ddgan_jax" / "classifiers" / name, Trained(params, about))
    return dataset


def test_classifier_is_the_same_on_any_devices_and_in_any_batches(classifier_in_cache):
    images = classifier_in_cache.images[:133]  # ragged for one device of 32 and for four
    one, four = (
        features.classifier(classifier_in_cache, jax.devices()[:n], silent) for n in (1, 4)
    )
    assert (one.batch_size, four.batch_size) == (32, 128)
    assert one.identity == four.identity and one.identity["accuracy"] == 0.5
    expected = one.extract(images)
    assert expected.vectors.shape == (133, 128) and expected.logits.shape == (133, 10)
    parts = [four.extract(part) for part in np.split(images, [1, 50])]
    for ours, theirs in zip(map(np.concatenate, zip(*parts, strict=True)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_frechet_distance_is_the_same_on_any_devices_and_in_any_batches(classifier_in_cache):
    """Every image counts once, also those of a ragged last batch."""
    images = random_images(133, seed=1)
    found = []
    for devices, chunk in ((1, 133), (4, 133), (4, 17), (1, 1)):
        network = features.classifier(classifier_in_cache, jax.devices()[:devices], silent)
        chunks = (images[i : i + chunk] for i in range(0, len(images), chunk))
        fake = gather(chunks, network, total=133, keep=100)
        real, _ = reference.of_dataset(classifier_in_cache, network, split="train", keep=0)
        assert (fake.stats.count, real.stats.count) == (133, 300)
        assert (len(fake.vectors), len(real.vectors)) == (100, 0)
        moments = map(statistics.mean_and_covariance, (real.stats, fake.stats))
        found.append(
            metrics.frechet_distance_from_statistics(*(m for pair in moments for m in pair))
        )
    assert found == pytest.approx([found[0]] * len(found), rel=1e-6)
    assert found[0] > 0


@pytest.mark.parametrize("lengths", [[5], [2, 3], [1] * 7, [4, 4], [0, 9, 1]])
def test_batches_of_chunks_are_the_images_in_order(lengths):
    chunks = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    batches = list(in_batches(chunks, 4))
    np.testing.assert_array_equal(np.concatenate(batches), np.arange(sum(lengths)))
    assert {len(batch) for batch in batches[:-1]} <= {4} and 1 <= len(batches[-1]) <= 4


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_filled_up_batch_leaves_no_trace(count):
    seen = []

    def call(batch):
        seen.append(len(batch))
        return {"double": jax.numpy.asarray(batch) * 2}

    examples = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    np.testing.assert_array_equal(call_in_batches(call, examples, 4)["double"], 2 * examples)
    assert seen == [4] * (-(-count // 4))


# ---- inception


def test_missing_inception_says_where_it_is_published(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        features.open_network("inception", lambda: None, report=silent)
    assert str(tmp_path / "ddgan_jax" / "inception.npz") in str(error.value)
    assert interop.INCEPTION_URL in str(error.value)
    assert str(error.value).endswith("ddgan import inception --from=FILE")


@pytest.mark.parametrize("protocol", names.PROTOCOLS)
def test_protocols_are_those_of_the_metrics_and_travel_with_the_numbers(
    protocol, tmp_path, monkeypatch
):
    assert set(names.PROTOCOLS) == set(inception.PROTOCOLS)
    weights = interop.InceptionWeights({}, "a" * 64, "b" * 64)
    monkeypatch.setattr(interop, "load", lambda path: weights)
    network = features.inception("x.npz", protocol, jax.devices())
    assert network.identity["protocol"] == protocol
    assert network.identity["weights_sha256"] == "a" * 64
    provenance = features.provenance(network, "cifar10 train", "none")
    assert provenance == (protocol, "a" * 64, "cifar10 train", "none", "inception")


def write_converted(path, drop=(), digest=None):
    leaves = jax.tree.leaves_with_path(interop.template())
    arrays = {
        "/".join(interop._unit_and_leaf(p)): np.zeros(leaf.shape, np.float32) for p, leaf in leaves
    }
    arrays = {name: value for name, value in arrays.items() if name not in drop}
    np.savez(path, sha256=digest or interop._digest(arrays), source_sha256="0", **arrays)


def test_inception_file_with_a_wrong_checksum_or_missing_entries(tmp_path):
    path = tmp_path / "inception.npz"
    write_converted(path, digest="0" * 64)
    with pytest.raises(UserError, match="inception.npz is damaged or not converted by us: fetch"):
        interop.load(path)
    write_converted(path, drop=("fc/kernel", "Conv2d_1a_3x3/bias"))
    with pytest.raises(UserError) as error:
        interop.load(path)
    assert "inception.npz does not hold the FID InceptionV3" in str(error.value)
    assert "Conv2d_1a_3x3/bias and 1 other" in str(error.value)


# ---- references


@pytest.fixture
def pixels_of_a_set(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return features.pixels(jax.devices()), dataset_of(random_images(40))


def test_reference_is_of_the_set_and_of_a_random_part(pixels_of_a_set):
    network, dataset = pixels_of_a_set
    everything = network.extract(dataset.images).vectors
    whole, provenance = reference.of_dataset(dataset, network, split="train", keep=15)
    mu, sigma = statistics.mean_and_covariance(whole.stats)
    np.testing.assert_allclose(mu, everything.mean(0, dtype=np.float64), atol=1e-9)
    np.testing.assert_allclose(sigma, np.cov(everything.T.astype(np.float64)), atol=1e-9)
    rows = [int(np.flatnonzero((everything == v).all(1))[0]) for v in whole.vectors]
    assert len(set(rows)) == 15 and rows != sorted(rows)
    assert provenance.dataset == "random train" and "8 x 8 x 1" in provenance.preprocessing
    part, provenance = reference.of_dataset(dataset, network, split="train", num=15, keep=0)
    np.testing.assert_allclose(part.stats.total, whole.vectors.sum(0, dtype=np.float64), atol=1e-4)
    assert provenance.dataset == "random train, 15 of them"


def test_reference_is_made_once_for_each_set_and_number_kept(pixels_of_a_set):
    network, dataset = pixels_of_a_set
    lines = []

    def get(dataset, keep, split="train"):
        return reference.from_cache(dataset, network, split=split, keep=keep, report=lines.append)

    first = get(dataset, 10)
    assert len(lines) == 1 and "random train, once: kept in" in lines[0]
    again = get(dataset, 5)
    np.testing.assert_array_equal(first.mu, again.mu)
    assert len(lines) == 1
    assert len(get(dataset, 99).features) == 40  # more than there are: all of them
    assert len(get(dataset, 99).features) == 40
    assert len(lines) == 2
    get(dataset, 99, split="train[:50%]")
    get(dataset_of(random_images(40, seed=1)), 0)  # other pixels under the same name
    assert len(lines) == 4


def test_fingerprint_tells_sets_apart():
    images = random_images(20)
    sets = [
        dataset_of(images),
        dataset_of(images, name="other"),
        dataset_of(images[:19]),
        dataset_of(images, num_classes=5),
        dataset_of(images + (np.arange(20) == 19)[:, None, None, None].astype(np.uint8)),
    ]
    assert len({fingerprint(s) for s in sets}) == len(sets)
    assert fingerprint(dataset_of(images.copy())) == fingerprint(sets[0])


# ---- the benchmark


def test_benchmark_times_the_distance(capsys, monkeypatch):
    monkeypatch.setattr(measure, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(benchmark, "DIM", 16)
    monkeypatch.setattr(benchmark, "EXAMPLES", 40)
    argv = [f"--config={ROOT}/configs/digits_ddgan.py", "--repeats=2"]
    parts = ("features", benchmark.__doc__, benchmark.FLAGS, benchmark.benchmark)
    assert command.main(*parts, [*argv, "--what=distance"]) == 0
    [(name, program)] = json.loads(capsys.readouterr().out)["programs"].items()
    assert (name, program["images_per_call"]) == ("distance", 50_000)
    for flag in ("--what=speed", "--protocol=clean", "--batch_size=6"):
        assert command.main(*parts, [*argv, flag]) == 2
        assert capsys.readouterr().err.startswith(f"benchmarks.features: {flag}")


def test_benchmark_parameters_keep_activations_in_size():
    params = benchmark.random_params()
    shapes = jax.tree.map(lambda leaf: leaf.shape, interop.template())
    assert jax.tree.map(np.shape, params) == shapes
    kernel = params["Mixed_6c"]["branch7x7_2"]["kernel"]
    assert kernel.std() == pytest.approx((2 / kernel[..., 0].size) ** 0.5, rel=0.02)
