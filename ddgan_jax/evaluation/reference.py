"""Compute the statistics of a data set's features, with which generated images are compared.

Images go through the training preprocessing, without mirroring. They are read in a fixed random
order, so that the first features belong to a random part of the set; they are kept for the metrics
that need more than mean and covariance.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ddgan_jax.config import base_config
from ddgan_jax.data import catalog, stacks
from ddgan_jax.data.datasets import Dataset, fingerprint
from ddgan_jax.data.order import REFERENCE_ORDER, permutation
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import cache, features
from ddgan_jax.evaluation.features import FeatureNetwork
from ddgan_jax.evaluation.gather import Gathered, gather
from ddgan_jax.evaluation.given import Given
from ddgan_jax.metrics import statistics
from ddgan_jax.metrics.statistics import SavedStatistics


def preprocessing(height: int, width: int, channels: int) -> str:
    """Describe the preprocessing of images of this size in words, for their provenance."""
    return (
        # These words are compared letter by letter with those of stored files: a change of them
        # makes every reference anew.
        f"{height} x {width} x {channels}: shorter side shrunk (bilinear, antialiased), "
        "centre crop, not mirrored"
    )


AS_GIVEN = ": as given"


def as_given(height: int, width: int, channels: int) -> str:
    """Describe images of this size that somebody gives, and that nothing is done to."""
    return f"{height} x {width} x {channels}{AS_GIVEN}"


def of_images(images: Given, path: str, network: FeatureNetwork, *, keep: int) -> SavedStatistics:
    """Return the statistics of all images that somebody gives.

    path: Where they lie, for the provenance. keep: Number of feature vectors to keep.
    """
    made = features.provenance(network, f"images of {path}", as_given(*images.shape))
    # Images may come in the order of their classes: the features kept must be of a random part.
    every = images.count if keep else 0
    found = gather(images.read(), network, total=images.count, keep=every, title="real images")
    order = permutation(0, (REFERENCE_ORDER,), every)[:keep] if every else slice(0)
    return statistics.saved(found.stats, made, found.vectors[order])


def of_dataset(
    dataset: Dataset, network: FeatureNetwork, *, split: str, num: int = 0, keep: int
) -> tuple[Gathered, statistics.Provenance]:
    """Gather the features of a set of images.

    split: The name of its part of the data, for the provenance. num: Number of images, 0 for all.
    keep: Number of feature vectors to keep. Raises UserError for an image that cannot be read.
    """
    info = dataset.info
    # Not the order of the set, which may be that of the classes: the first features must belong to
    # a random part.
    order = permutation(0, (REFERENCE_ORDER,), info.num_examples)
    ids = order[: num or len(order)]
    # A result must not claim the whole set for statistics of a part of it.
    part = f", {len(ids)} of them" if len(ids) < len(order) else ""
    chunks = _read(dataset, ids, network.batch_size)
    gathered = gather(chunks, network, total=len(ids), keep=keep, title="real images")
    return gathered, _provenance(dataset, network, f"{split}{part}")


def _provenance(dataset: Dataset, network: FeatureNetwork, split: str) -> statistics.Provenance:
    info = dataset.info
    size = info.image_size
    return features.provenance(
        network, f"{info.name} {split}", preprocessing(size, size, info.channels)
    )


def _read(dataset: Dataset, ids: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(ids), size):
        yield dataset.read(ids[start : start + size])[0]


def from_cache(
    dataset: Dataset,
    network: FeatureNetwork,
    *,
    split: str,
    keep: int,
    report: Callable[[str], None],
) -> SavedStatistics:
    """Return the statistics of a whole set, from the cache folder or made now.

    keep: Number of feature vectors that are needed; a file with fewer is made anew. report: Takes
    messages, a line each.
    """
    info = dataset.info
    # The name holds everything that the statistics depend on, apart from `keep`, which may grow.
    what = [fingerprint(dataset), split, dict(network.identity)]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{info.name.replace('/', '_')}-{network.name}-{digest}.npz"

    def make(where: str) -> SavedStatistics:
        count = f"{info.num_examples:,}"
        report(f"features of the {count} images of {info.name} {split}, once: {where}")
        gathered, provenance = of_dataset(dataset, network, split=split, keep=keep)
        return statistics.saved(gathered.stats, provenance, gathered.vectors)

    def is_enough(found: SavedStatistics) -> bool:
        ours = _provenance(dataset, network, split)
        # A file of the same name may come from a version with another preprocessing.
        whole = (found.count, found.provenance) == (info.num_examples, ours)
        return whole and len(found.features) >= min(keep, info.num_examples)

    return cache.kept(
        f"references/{name}",
        statistics.load,
        make,
        statistics.write,
        is_enough=is_enough,
        report=report,
    )


def data_config(
    name: str,
    *,
    split: str = "train",
    data_dir: str = "",
    image_size: int = 0,
    channels: int = 0,
) -> ConfigDict:
    """Return a config that names a data set, for `data.open_dataset`.

    image_size, channels: 0 for the set's own. Raises UserError if the set has no common size.
    """
    config = base_config()
    config.data.update(name=name, split=split, dir=data_dir)
    # The size of the prepared set is looked up only where one of the two is missing.
    own = (image_size, channels) if image_size and channels else _own_size(name, data_dir)
    config.data.update(image_size=image_size or own[0], channels=channels or own[1])
    return config.lock()


# Sets that this program makes, of which nothing may be prepared yet that tells their sizes.
_OURS = {"digits": (8, 1)} | {
    name: (stack.image_size, stacks.CHANNELS) for name, stack in stacks.SETS.items()
}


def _own_size(name: str, data_dir: str) -> tuple[int, int]:
    if name in _OURS:
        return _OURS[name]
    folder = catalog.resolve_data_dir(data_dir)
    builder = catalog.find_prepared(name, folder)
    if builder is None:
        raise UserError(
            f"{name} is not prepared in {folder}: {catalog.how_to_prepare(name, data_dir)}"
        )
    features: Any = catalog.features_of(builder)
    shapes = [f.shape for f in features.values() if len(f.shape or ()) == 3]
    if len(shapes) != 1 or None in shapes[0] or shapes[0][0] != shapes[0][1]:
        raise UserError(
            f"the images of {name} have no common square size: give `image_size` and `channels`"
        )
    return shapes[0][0], shapes[0][2]


def write(
    dataset: Dataset,
    network: FeatureNetwork,
    out: str | os.PathLike,
    *,
    split: str,
    num: int,
    keep: int,
) -> SavedStatistics:
    """Write the statistics of a set to `out` and return them: `ddgan reference`."""
    gathered, provenance = of_dataset(dataset, network, split=split, num=num, keep=keep)
    made = statistics.saved(gathered.stats, provenance, gathered.vectors)
    statistics.write(out, made)
    return made


def write_images(
    images: Given, path: str, network: FeatureNetwork, out: str | os.PathLike, *, keep: int
) -> SavedStatistics:
    """Write the statistics of images that somebody gives to `out` and return them."""
    made = of_images(images, path, network, keep=keep)
    statistics.write(out, made)
    return made
