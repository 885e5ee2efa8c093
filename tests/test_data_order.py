"""Laws of the order in which examples are read."""

import numpy as np
import pytest

from ddgan_jax.data.order import EPOCH, STACK, example_ids, permutation


def stream(seed: int, steps: int, batch_size: int, num_examples: int) -> np.ndarray:
    return np.concatenate(
        [example_ids(seed, step, batch_size, num_examples) for step in range(steps)]
    )


@pytest.mark.parametrize(
    ("batch_size", "num_examples"), [(4, 20), (7, 20), (20, 20), (64, 20), (3, 1), (1, 5)]
)
def test_every_example_comes_once_per_epoch(batch_size, num_examples):
    epochs = 6
    steps = -(-epochs * num_examples // batch_size)
    ids = stream(3, steps, batch_size, num_examples)[: epochs * num_examples]
    everything = np.arange(num_examples)
    for epoch in ids.reshape(epochs, num_examples):
        np.testing.assert_array_equal(np.sort(epoch), everything)


def test_epochs_and_seeds_differ():
    first, second = stream(0, 2, 100, 100).reshape(2, 100)
    other = stream(1, 1, 100, 100)
    for a, b in [(first, second), (first, other), (first, np.arange(100))]:
        assert np.mean(a == b) < 0.1


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("interleaved", [False, True])
def test_shares_of_processes_make_the_global_batch(processes, interleaved):
    batch_size, num_examples, step = 16, 11, 5
    rows = np.arange(batch_size).reshape(processes, -1)
    shares = rows.reshape(-1, processes).T if interleaved else rows
    together = np.empty(batch_size, np.int64)
    for share in shares:
        together[share] = example_ids(7, step, batch_size, num_examples, share)
    np.testing.assert_array_equal(together, example_ids(7, step, batch_size, num_examples))


def test_order_depends_on_the_stream_not_on_how_it_is_cut():
    np.testing.assert_array_equal(stream(5, 30, 4, 17), stream(5, 10, 12, 17))


def test_permutation_is_pinned():
    """A resumed run must go on in the same order after any upgrade: these never change."""
    assert permutation(0, (EPOCH, 0), 10).tolist() == [7, 6, 8, 3, 2, 4, 1, 5, 0, 9]
    assert permutation(2**40 + 1, (STACK, 2, 1), 10).tolist() == [3, 2, 6, 4, 5, 0, 9, 1, 8, 7]


def test_purposes_are_independent():
    keys = [(EPOCH, 0), (EPOCH, 1), (STACK, 0), (STACK, 0, 0), (STACK, 0, 1), (STACK, 1, 0)]
    orders = {tuple(permutation(0, key, 50)) for key in keys}
    assert len(orders) == len(keys)


def test_late_steps_do_not_overflow():
    ids = example_ids(0, 10**12, 4096, 1_281_167, np.array([0, 4095]))
    places = [(10**12 * 4096 + row) % 1_281_167 for row in (0, 4095)]
    epoch = 10**12 * 4096 // 1_281_167
    np.testing.assert_array_equal(ids, permutation(0, (EPOCH, epoch), 1_281_167)[places])
