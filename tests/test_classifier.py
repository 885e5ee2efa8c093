"""Classifiers: they learn, are the same for the same seed, and their files are checked."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from ddgan_jax import data, metrics
from ddgan_jax.data.datasets import ArrayDataset, DatasetInfo, StackedDataset
from ddgan_jax.data.order import HELD_OUT_ORDER, permutation
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import classifier
from ddgan_jax.evaluation.reference import data_config

STEPS = 40  # enough for 97 %; 210, as the digits get by themselves, bring 99 %

TRAIN = f"""
from ddgan_jax import data
from ddgan_jax.evaluation import classifier
from ddgan_jax.evaluation.reference import data_config
classifier.of_dataset(data.open_dataset(data_config("digits")), print, steps={STEPS})
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A cache and a data folder, as environment variables."""
    root = tmp_path_factory.mktemp("folders")
    return {"XDG_CACHE_HOME": str(root / "cache"), "TFDS_DATA_DIR": str(root / "tfds")}


@pytest.fixture(scope="module")
def output(folders):
    """What training prints, in a process of its own: its code is optimised, unlike the tests'."""
    environment = os.environ | folders | {"XLA_FLAGS": ""}
    command = [sys.executable, "-c", TRAIN]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def digits(folders, output):
    return data.open_dataset(data_config("digits", data_dir=folders["TFDS_DATA_DIR"]))


@pytest.fixture
def trained(digits, folders, monkeypatch):
    """From the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", folders["XDG_CACHE_HOME"])
    lines = []
    found = classifier.of_dataset(digits, lines.append, steps=STEPS)
    assert not lines
    return found


def test_it_learns_the_digits_and_says_so(trained, output):
    assert f"training a classifier of digits, once: {STEPS} steps, kept in" in output[0]
    assert output[-1].endswith("on 180 images that it was not trained on")
    about = trained.about
    assert about["accuracy"] > 0.97
    assert about["held_out"] == 180
    assert (about["dataset"], about["classes"], about["images"]) == ("digits", 10, [8, 8, 1])


def test_the_seed_decides(digits, monkeypatch):
    """Bit by bit; another seed gives another network."""
    monkeypatch.setattr(classifier, "BATCH_SIZE", 8)
    first, again, other = (
        classifier.train(digits, print, steps=2, seed=seed).about["weights_sha256"]
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_held_out_examples_are_not_trained_on(digits, monkeypatch):
    read = []

    class Recording:
        info = digits.info

        def read(self, ids):
            read.append(ids)
            return digits.read(ids)

    monkeypatch.setattr(classifier, "_step", lambda optimizer, state, batch: (state, 0.0))
    monkeypatch.setattr(classifier, "_accuracy", lambda params, part: len(part.ids) / 1e4)
    trained = classifier.train(Recording(), print, steps=13)
    assert trained.about["accuracy"] == 180 / 1e4
    seen = np.unique(np.concatenate(read))
    assert len(seen) == 1797 - 180  # more than an epoch


def test_sets_without_classes(digits):
    unlabelled = ArrayDataset(DatasetInfo("faces", 9, 8, 1, 0), digits.images[:9], digits.labels)
    with pytest.raises(UserError, match="faces have no classes .* use `features=pixels`"):
        classifier.of_dataset(unlabelled, print)


def test_damaged_and_foreign_files(trained, tmp_path):
    whole, text, other = (tmp_path / name for name in ("whole.npz", "text.npz", "other.npz"))
    classifier.save(whole, trained)
    assert classifier.load(whole).about == trained.about
    text.write_text("weights")
    params = dict(trained.params, logits=jax.tree.map(np.negative, trained.params["logits"]))
    classifier.save(other, trained._replace(params=params))
    for path, message in (
        (tmp_path / "none.npz", "cannot read .*none.npz: there is no such file"),
        (text, "text.npz is no .npy or .npz file of arrays"),
        (other, "other.npz is damaged: it does not match its checksum"),
    ):
        with pytest.raises(UserError, match=message):
            classifier.load(path)


# ---- stacked digits


def stack_of(digits):
    """The digits as if they were MNIST's, in threes."""
    members = np.random.default_rng(0).integers(0, len(digits.images), (3, 600))
    info = DatasetInfo("stacked_mnist", 600, 8, 3, 1000)
    return StackedDataset(info, digits.images[..., 0], digits.labels, members)


def test_stacks_are_labelled_by_their_channels(digits, trained):
    stacked = stack_of(digits)
    images, labels = stacked.read(np.arange(600))
    found = classifier.label_stacks(trained.params, images)
    assert (found == labels).mean() > 0.97**3
    assert metrics.mode_statistics(found, 1000).modes == pytest.approx(
        metrics.mode_statistics(labels, 1000).modes, rel=0.05
    )
    swapped = classifier.label_stacks(trained.params, images[..., ::-1])
    np.testing.assert_array_equal(swapped, found % 10 * 100 + found // 10 % 10 * 10 + found // 100)


def test_the_accuracy_is_that_of_the_channels_of_held_out_stacks(digits, trained):
    """Each channel goes through the held-out digits once, in an order of its own."""
    held_out = permutation(0, (HELD_OUT_ORDER,), 1797)[:180]
    members = np.random.default_rng(1).permuted(np.tile(held_out, (3, 1)), axis=1)
    info = DatasetInfo("stacked_digits", 180, 8, 3, 1000)
    stacked = StackedDataset(info, digits.images[..., 0], digits.labels, members)
    images, labels = stacked.read(np.arange(180))
    found = classifier.label_stacks(trained.params, images)
    for place in (1, 10, 100):
        right = (found // place % 10 == labels // place % 10).mean()
        assert right == pytest.approx(trained.about["accuracy"])


def test_digit_classifier_is_of_the_channels_as_they_are(digits, folders, trained, monkeypatch):
    """What it is trained on are all of the set's own layers, each digit once."""
    given = []
    monkeypatch.setattr(
        classifier, "of_dataset", lambda dataset, report: given.append(dataset) or trained
    )
    config = data_config("stacked_digits", data_dir=folders["TFDS_DATA_DIR"])
    config.data.update(max_examples=7, holdout=0.5, split="train:holdout")
    assert classifier.of_stacked_digits(config, print) is trained
    [dataset] = given
    assert (dataset.info.name, dataset.info.num_classes) == ("digits", 10)
    np.testing.assert_array_equal(dataset.images, digits.images)
    np.testing.assert_array_equal(dataset.labels, digits.labels)
    config = data_config("digits", data_dir=folders["TFDS_DATA_DIR"])
    with pytest.raises(UserError, match="on stacked_mnist and stacked_digits, not on digits"):
        classifier.of_stacked_digits(config, print)
