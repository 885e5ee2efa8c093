"""Write the examples of a split in TFDS's order, at any size, without TensorFlow.

TFDS orders the examples of a split by a hash of their keys. Its own writer holds them in memory up
to about 1 GB, and needs TensorFlow for files beyond that. This one keeps a few MiB in memory and
the rest in an unnamed temporary file beside the set, and writes the same bytes.
"""

import array
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, hashing
from tensorflow_datasets.core.writer import Writer

# Bytes of examples that are held in memory.
IN_MEMORY = 64 * 2**20
_HASH_BYTES = 16


def write_split(
    builder: Any, split: str, examples: Iterable[tuple[int | bytes, dict[str, Any]]]
) -> tfds.core.SplitInfo:
    """Write the shards of a split into the builder's folder, and return what TFDS notes of it.

    examples: keys, each once, and features. The temporary file takes as much room as the split.
    """
    features = builder.info.features
    template = builder._get_filename_template(split_name=split)
    writer = Writer(
        serializer=example_serializer.ExampleSerializer(features.get_serialized_info()),
        filename_template=template,
        hash_salt=split,
        disable_shuffling=False,
        example_writer=builder._example_writer(),
    )
    with tempfile.SpooledTemporaryFile(IN_MEMORY, dir=builder.data_path) as file:
        given: Any = writer
        given._shuffler = _Shuffler(split, file)
        for key, example in examples:
            writer.write(key, features.encode_example(example))
        lengths, size = writer.finalize()
    return tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
    )


class _Shuffler:
    """Takes the place of TFDS's `Shuffler`: keeps records, and returns them by their keys' hashes.

    The list in memory has 24 bytes for each record: the hash of its key, and where it ends.
    """

    def __init__(self, salt: str, file: IO[bytes]):
        self._hasher, self._file = hashing.Hasher(salt), file
        self._hashes, self._ends = bytearray(), array.array("q", [0])

    def add(self, key: int | bytes, data: bytes) -> None:
        self._hashes += self._hasher.hash_key(key).to_bytes(_HASH_BYTES, "big")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    @property
    def size(self) -> int:
        return self._ends[-1]

    @property
    def num_examples(self) -> int:
        return len(self._ends) - 1

    @property
    def bucket_lengths(self) -> list[int]:
        return [self.num_examples]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        upper, lower = np.frombuffer(bytes(self._hashes), ">u8").reshape(-1, 2).T
        for place in np.lexsort((lower, upper)).tolist():
            self._file.seek(self._ends[place])
            yield place, self._file.read(self._ends[place + 1] - self._ends[place])
