"""Make the endless stream of batches that the train loop iterates over."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, cast

import grain
import numpy as np

from ddgan_jax.data.datasets import Dataset, RecordDataset, own_words
from ddgan_jax.data.order import example_ids

if TYPE_CHECKING:
    from ddgan_jax.state import Batch

# Batches made before they are asked for.
AHEAD = 2
# Examples that one thread decodes at a time.
CHUNK = 16

Examples = tuple[np.ndarray, np.ndarray]  # images, labels


def batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    positions: np.ndarray | None = None,
) -> "Generator[Batch, None, None]":
    """Yield this process's rows of the batches of train steps start_step, start_step + 1, ...

    The batch of step s depends on (seed, s) alone: starting at step k equals skipping k batches,
    and the rows of all processes together are the same global batch for any number of processes.
    Batches are made ahead in the background. Closing the generator (`contextlib.closing`) stops
    that, and an error in the background surfaces in `next`.

    Args:
      dataset: what to read. One in memory is read by one thread, one in files by its `threads`.
      batch_size: examples in the global batch, over all processes.
      seed: >= 0, of the order.
      start_step: >= 0.
      positions: int (n,), the rows of the global batch to read; None: all of them.

    Yields:
      Batch of n examples, its "index" being `positions`.

    Raises:
      UserError: an example cannot be read.
    """
    # The position in the global batch goes with each example: random draws are keyed by it.
    index = np.arange(batch_size) if positions is None else np.asarray(positions)
    share = _Share(dataset, batch_size, seed, start_step, index)
    # Decoding takes many threads; reading from memory is a copy, and takes one.
    if isinstance(dataset, RecordDataset):
        reader = _decoded_ahead(share, dataset.threads)
    else:
        reader = _from_memory(share)
    with reader as read, concurrent.futures.ThreadPoolExecutor(1) as background:
        # One worker makes batches in order, while the devices work on earlier ones.
        pending = collections.deque(background.submit(read, step) for step in range(AHEAD))
        try:
            for step in itertools.count(AHEAD):
                images, labels = pending.popleft().result()
                pending.append(background.submit(read, step))
                batch = {"image": images, "label": labels, "index": index.astype(np.int32)}
                # Its arrays lie on the host until the devices get them.
                yield cast("Batch", batch)
        finally:
            # The executor waits for the batch that is being made, and need not make the others.
            for future in pending:
                future.cancel()


@dataclasses.dataclass(frozen=True, eq=False)
class _Share:
    """One process's rows of all batches from start_step on. index: int (n,), the rows."""

    dataset: Dataset
    batch_size: int
    seed: int
    start_step: int
    index: np.ndarray

    def read(self, step: int, rows: slice = slice(None)) -> Examples:
        """Return some of the rows of the step-th batch."""
        ids = example_ids(
            self.seed,
            self.start_step + step,
            self.batch_size,
            self.dataset.info.num_examples,
            self.index[rows],
        )
        return self.dataset.read(ids)


@dataclasses.dataclass(frozen=True, eq=False)
class _Chunks:
    """A random access source for Grain that holds each batch in chunks of `CHUNK` rows."""

    share: _Share

    @property
    def per_batch(self) -> int:
        return -(-len(self.share.index) // CHUNK)

    def __len__(self) -> int:
        # The stream has no end, and Grain wants a length.
        return sys.maxsize

    def __getitem__(self, index: int) -> Examples:
        step, chunk = divmod(index, self.per_batch)
        return self.share.read(step, slice(chunk * CHUNK, (chunk + 1) * CHUNK))


@contextlib.contextmanager
def _from_memory(share: _Share) -> Iterator[Callable[[int], Examples]]:
    """Give a function from steps, counted from start_step, to this process's rows."""
    yield share.read


@contextlib.contextmanager
def _decoded_ahead(share: _Share, threads: int) -> Iterator[Callable[[int], Examples]]:
    """Give the same function with Grain's threads decoding; steps must come as 0, 1, 2, ..."""
    source = _Chunks(share)
    # Grain keeps the order of the chunks however many threads read them.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    chunks = iter(grain.MapDataset.source(source).to_iter_dataset(options))

    def read(step: int) -> Examples:
        with own_words():
            images, labels = zip(*itertools.islice(chunks, source.per_batch), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    try:
        yield read
    finally:
        chunks.close()
