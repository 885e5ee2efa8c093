"""Stacked digits: labels, shares of the digits, the same set for ever, its modes."""

import numpy as np
import pytest

from ddgan_jax import metrics
from ddgan_jax.config.files import leaves, load_config
from ddgan_jax.data import fingerprint, open_dataset
from ddgan_jax.data.datasets import ArrayDataset, DatasetInfo
from ddgan_jax.data.stacks import SETS, stacked
from ddgan_jax.evaluation.reference import data_config

COUNT = 26_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def opened(folder, **fields):
    config = data_config("stacked_digits", data_dir=folder)
    config.data.update(fields)
    return open_dataset(config)


@pytest.fixture(scope="module")
def stacks(folder):
    return opened(folder)


@pytest.fixture(scope="module")
def digits(folder):
    return open_dataset(data_config("digits", data_dir=folder))


def names_of(images):
    """The bytes of each channel, (n, 3) lists."""
    return [[image[..., c].tobytes() for c in range(3)] for image in images]


def test_the_label_is_what_the_channels_spell(stacks, digits):
    assert (stacks.info.image_size, stacks.info.channels, stacks.info.num_classes) == (8, 3, 1000)
    known = {i.tobytes(): n for i, n in zip(digits.images, digits.labels, strict=True)}
    images, labels = stacks.read(np.arange(0, stacks.info.num_examples, 13))
    spelt = [int("".join(str(known[name]) for name in names)) for names in names_of(images)]
    np.testing.assert_array_equal(labels, spelt)


@pytest.mark.parametrize("name", SETS)
def test_every_pass_of_a_channel_shows_each_digit_once(name):
    """And no two passes have the same order."""
    size, passes = SETS[name].gray_size, SETS[name].passes
    values = np.arange(40, dtype=np.uint8)
    pixels = np.broadcast_to(values[:, None, None, None], (40, size, size, 1))
    gray = ArrayDataset(DatasetInfo("gray", 40, size, 1, 10), pixels, values.astype(np.int32) % 10)
    made = stacked(name, gray)
    assert made.info.num_examples == 40 * passes
    middle = made.info.image_size // 2
    seen = made.read(np.arange(40 * passes))[0][:, middle, middle]
    orders = seen.T.reshape(3 * passes, 40)
    np.testing.assert_array_equal(np.sort(orders), np.tile(values, (3 * passes, 1)))
    assert len({order.tobytes() for order in orders}) == 3 * passes


def test_it_is_the_same_set_for_ever(stacks, folder):
    """Runs resume on it, and results of different machines are compared on it."""
    assert fingerprint(stacks) == "845f794bccc45b92"
    ids = np.arange(0, 118_602, 29)
    for one, other in zip(stacks.read(ids), opened(folder).read(ids), strict=True):
        np.testing.assert_array_equal(one, other)
    nine = opened(folder, max_examples=9)
    assert nine.info.num_examples == 9
    np.testing.assert_array_equal(nine.read(np.arange(9))[0], stacks.read(np.arange(9))[0])


def test_digits_and_not_triples_are_held_out(folder, digits):
    def names(**fields):
        part = opened(folder, holdout=180, **fields)
        # The first pass shows every digit in each channel.
        images, _ = part.read(np.arange(part.info.num_examples // SETS["stacked_digits"].passes))
        return [set(channel) for channel in zip(*names_of(images), strict=True)]

    for kept, held in zip(names(), names(split="train:holdout"), strict=True):
        assert not kept & held
        assert kept | held == {image.tobytes() for image in digits.images}


def test_real_stacks_have_all_modes_and_the_divergence_of_their_number(stacks):
    ids = np.random.default_rng(0).permutation(stacks.info.num_examples)
    labels = stacks.read(ids)[1]
    whole = metrics.mode_statistics(labels[:COUNT], 1000)
    assert whole.modes == 1000
    # The standard deviation of the divergence is sqrt(2 (K - 1)) / (2 N), 0.0009.
    assert whole.kl == pytest.approx(999 / (2 * COUNT), abs=0.003)
    half = metrics.mode_statistics(labels[labels < 500][:COUNT], 1000)
    assert half.modes == 500
    assert half.kl == pytest.approx(np.log(2) + 499 / (2 * COUNT), abs=0.003)


def test_the_two_methods_have_the_same_networks_and_rates():
    one, other = (dict(leaves(load_config(f"stacked_digits_{m}"))) for m in ("ddgan", "siddm"))
    assert one.keys() == other.keys()
    different = {path for path in one if one[path] != other[path]}
    assert {p for p in different if not p.startswith("objective.")} == {
        "diffusion.schedule",
        "optimizer.beta2",
    }
