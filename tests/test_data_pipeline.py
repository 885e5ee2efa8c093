"""Batches: a function of seed and step, however they are made."""

import contextlib
import dataclasses
import itertools
import threading
import time

import numpy as np
import pytest

from ddgan_jax.config import base_config
from ddgan_jax.data import batches, example_ids, open_dataset
from ddgan_jax.data.datasets import ArrayDataset, RecordDataset
from ddgan_jax.errors import UserError


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The same 50 digits, in memory and decoded from their files."""
    config = base_config()
    config.data.name = "digits"
    config.data.image_size, config.data.channels = 8, 1
    config.data.max_examples = 50
    config.data.dir = str(tmp_path_factory.mktemp("tfds"))
    in_memory = open_dataset(config)
    config.data.memory_limit_mib = 0
    from_files = open_dataset(config)
    assert isinstance(in_memory, ArrayDataset)
    assert isinstance(from_files, RecordDataset)
    return {"memory": in_memory, "files": from_files}


def take(dataset, count, **arguments):
    stream = batches(dataset, **{"batch_size": 20, "seed": 3, "start_step": 0} | arguments)
    with contextlib.closing(stream):
        return list(itertools.islice(stream, count))


def assert_equal(some, others):
    for a, b in zip(some, others, strict=True):
        for name in ("image", "label", "index"):
            np.testing.assert_array_equal(a[name], b[name])


def test_memory_and_files_give_the_same_batches(digits):
    """Through three epochs of 2.5 batches, with chunks that do not divide the batch."""
    batch = take(digits["files"], 1)[0]
    assert batch["image"].shape == (20, 8, 8, 1)
    assert [batch[k].dtype for k in ("image", "label", "index")] == [np.uint8, np.int32, np.int32]
    assert_equal(take(digits["memory"], 8), take(digits["files"], 8))


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_batches_follow_the_order(digits, kind):
    for step, batch in enumerate(take(digits[kind], 4)):
        pixels, labels = digits["memory"].read(example_ids(3, step, 20, 50))
        np.testing.assert_array_equal(batch["image"], pixels)
        np.testing.assert_array_equal(batch["label"], labels)
        np.testing.assert_array_equal(batch["index"], np.arange(20))


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_starting_late_equals_skipping(digits, kind):
    assert_equal(take(digits[kind], 3, start_step=4), take(digits[kind], 7)[4:])


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_global_batch(digits, kind, processes):
    shares = np.arange(20).reshape(processes, -1)
    parts = [take(digits[kind], 4, positions=share) for share in shares]
    together = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(together, take(digits[kind], 4))


@dataclasses.dataclass(frozen=True)
class Failing:
    """Cannot read one of its examples."""

    dataset: ArrayDataset
    bad: int

    @property
    def info(self):
        return self.dataset.info

    def read(self, ids):
        if self.bad in ids:
            raise UserError(f"example {self.bad}")
        return self.dataset.read(ids)


def failing(dataset, bad):
    if isinstance(dataset, ArrayDataset):
        return Failing(dataset, bad)

    def read_records(ids):
        if bad in ids:
            raise RuntimeError("bad sector")
        return dataset.read_records(ids)

    return dataclasses.replace(dataset, read_records=read_records)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_error_in_the_background_surfaces_at_its_step(digits, kind):
    bad = int(example_ids(3, 2, 20, 50, np.array([18]))[0])
    first = next(s for s in range(9) if bad in example_ids(3, s, 20, 50))
    stream = batches(failing(digits[kind], bad), batch_size=20, seed=3, start_step=0)
    with contextlib.closing(stream):
        assert len(list(itertools.islice(stream, first))) == first
        with pytest.raises(UserError, match=f"example {bad}|bad sector"):
            next(stream)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_closing_leaves_no_thread(digits, kind):
    before = set(threading.enumerate())
    stream = batches(digits[kind], batch_size=20, seed=3, start_step=0)
    next(stream)
    assert set(threading.enumerate()) - before
    stream.close()
    patience = time.monotonic() + 30
    while (left := set(threading.enumerate()) - before) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not left
