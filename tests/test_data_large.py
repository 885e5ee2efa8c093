"""Sets above the size up to which TFDS writes without TensorFlow."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from ddgan_jax.data import builders, record_writer

RNG = np.random.default_rng(0)
PIXELS = {s: RNG.integers(0, 256, (n, 6, 6, 3), np.uint8) for s, n in (("train", 60), ("test", 9))}


def write(folder):
    splits = {s: builders.array_examples(x, np.arange(len(x)) % 3) for s, x in PIXELS.items()}
    return builders.write(builders.ImageSet("mine", "Squares.", (6, 6, 3), 3, splits, folder))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("in_memory", [1, 2**20])
def test_large_sets_are_written_without_tensorflow(tmp_path, monkeypatch, in_memory):
    """On disk or in memory, the files are those that TFDS writes: its order is the reference."""
    with monkeypatch.context() as patch:
        patch.delattr(builders.ImageSet, "_generate_splits")
        by_tfds = files(write(tmp_path / "tfds"))
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    monkeypatch.setattr(record_writer, "IN_MEMORY", in_memory)
    folder = write(tmp_path / "ours")
    assert files(folder) == by_tfds
    for split, pixels in PIXELS.items():
        source = tfds.builder_from_directory(folder).as_data_source(split)
        read = {example["image"].tobytes(): int(example["label"]) for example in source}
        assert read == {image.tobytes(): k % 3 for k, image in enumerate(pixels)}


def test_a_full_disk_leaves_no_set_and_no_temporary_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_writer._Shuffler, "add", full)
    with pytest.raises(builders.UserError, match="cannot write the set mine .* No space left"):
        write(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
