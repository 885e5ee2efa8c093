"""Find the training images nearest to samples, pixel by pixel, to see whether a model copies.

The set is read in chunks, and only candidates are kept: memory does not grow with it. Candidates
come from float32 matrix products, |v|^2 - 2 u.v, whose rounding may put equals in any order; the
distances of those few are then taken exactly, in integers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from ddgan_jax.data import Dataset
from ddgan_jax.errors import UserError
from ddgan_jax.inference.model import Model
from ddgan_jax.pixels import HALF_RANGE
from ddgan_jax.progress import Display
from ddgan_jax.viz import distances, words
from ddgan_jax.viz.tiles import Block, Picture

# Bytes of a chunk of the set and its distances, in float32.
CHUNK_BYTES = 64 * 2**20
# Candidates beyond those asked for, from which the exact distances choose.
SPARE = 8


class Neighbours(NamedTuple):
    """The k images of a set that are nearest to each of N images, the nearest first."""

    # int64 (N, k), example ids.
    indices: np.ndarray
    # float64 (N, k), L2 of images in [-1, 1].
    distances: np.ndarray
    # uint8 (N, k, H, W, C).
    images: np.ndarray


def nearest(
    dataset: Dataset,
    queries: UInt8[np.ndarray, "n h w c"],
    k: int,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Neighbours:
    """Return the k examples nearest to each query; ties are broken by example id.

    Examples are compared as they are stored, and not mirrored. chunk_bytes: memory for a chunk of
    the set and its distances. Raises UserError for a set of fewer than k examples.
    """
    count, shape = dataset.info.num_examples, queries.shape[1:]
    if count < k:
        raise UserError(f"{dataset.info.name} has {count} images: `neighbours={k}` is more")
    u = _centred(queries)
    best = np.full((len(u), 0), np.inf, np.float32)
    ids = np.zeros((len(u), 0), np.int64)
    # A chunk needs memory for its pixels, and for its distances to all queries.
    rows = max(1, chunk_bytes // (4 * sum(u.shape)))
    with Display(count, title="comparing", unit="images") as display:
        for first in range(0, count, rows):
            chunk = np.arange(first, min(first + rows, count))
            v = _centred(dataset.read(chunk)[0])
            # The term |u|^2 is left out: it is the same for all candidates of a query.
            squares = np.square(v).sum(1) - 2 * (u @ v.T)
            # The best so far compete with the chunk, and the stable sort keeps earlier ids before
            # equal ones.
            best = np.concatenate([best, squares], axis=1)
            ids = np.concatenate([ids, np.broadcast_to(chunk, squares.shape)], axis=1)
            kept = np.argsort(best, axis=1, kind="stable")[:, : k + SPARE]
            best, ids = (np.take_along_axis(a, kept, 1) for a in (best, ids))
            display.advance(len(chunk))

    # In the order of their ids, a stable sort breaks ties between equal distances by id.
    ids = np.sort(ids, axis=1)
    candidates = dataset.read(ids.reshape(-1))[0].reshape(*ids.shape, *shape)
    pairs = zip(candidates, queries, strict=True)
    exact = np.stack([distances.from_one(others, query) for others, query in pairs])
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(candidates, order[..., None, None, None], 1)
    nearest_ids, lengths = (np.take_along_axis(a, order, 1) for a in (ids, exact))
    return Neighbours(nearest_ids, lengths, found)


def _centred(pixels: np.ndarray) -> Float32[np.ndarray, "n d"]:
    """Return images as vectors around zero, where float32 rounds least."""
    return pixels.reshape(len(pixels), -1).astype(np.float32) - np.float32(HALF_RANGE)


def table(seeds: Sequence[int], found: Neighbours) -> str:
    """Return a line for each image: its neighbours' example ids, with their distances."""
    lines = []
    for seed, ids, lengths in zip(seeds, found.indices, found.distances, strict=True):
        pairs = (f"{id_} ({length:.3f})" for id_, length in zip(ids, lengths, strict=True))
        lines.append(f"seed {seed}: {', '.join(pairs)}")
    return "\n".join(lines)


def figure(
    model: Model,
    seeds: Sequence[int],
    labels: Sequence[int] | None,
    samples: UInt8[np.ndarray, "n h w c"],
    found: Neighbours,
    dataset: Dataset,
) -> Picture:
    """Return the figure of samples, each before the images that are nearest to it."""
    count = found.indices.shape[1]
    below = [
        [f"no. {id_}\n{length:.3f}" for id_, length in zip(*pair, strict=True)]
        for pair in zip(found.indices, found.distances, strict=True)
    ]
    return Picture(
        "The training images nearest to samples",
        f"{words.of_model(model)} A row for each seed.",
        [
            Block("sample", samples[:, None]),
            Block(
                f"nearest of {dataset.info.num_examples:,} images of {dataset.info.name}",
                found.images,
                ["nearest", *(f"{place}." for place in range(2, count + 1))],
                below,
            ),
        ],
        words.rows(seeds, labels),
        "Below each: its number in the data set, and its L2 distance from the sample, over all "
        "pixels and channels, with values from -1 to 1. Mirrored images are not compared.",
    )
