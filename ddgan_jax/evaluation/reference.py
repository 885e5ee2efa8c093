"""The real images that generated ones are compared with: statistics of a data set's features.

Images go through the training preprocessing, without mirroring. They are read in a fixed random
order, so that the first features, which are kept for the metrics that need more than mean and
covariance, are those of a random part of the set.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ddgan_jax.config import base_config
from ddgan_jax.data import catalog
from ddgan_jax.data.datasets import Dataset
from ddgan_jax.data.order import REFERENCE_ORDER, permutation
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import cache, features
from ddgan_jax.evaluation.features import FeatureNetwork
from ddgan_jax.metrics import statistics
from ddgan_jax.metrics.statistics import FeatureStatistics, SavedStatistics

KEPT = 50_000  # features that `ddgan reference` keeps unless told otherwise


class Gathered(NamedTuple):
    """What a set of images leaves: statistics of all features, and the first of them."""

    stats: FeatureStatistics
    vectors: np.ndarray  # float32 (at most `keep`, D)
    logits: np.ndarray | None  # float32 (N, classes), where they are asked for
    labels: np.ndarray | None  # int (N,), where somebody labels the images


def gather(
    chunks: Iterable[np.ndarray],
    network: FeatureNetwork,
    *,
    total: int,
    keep: int,
    logits: bool = False,
    label: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Gathered:
    """Features of uint8 images that come in chunks (n, H, W, C), any n; none is held for long.

    total: of images, for the progress bar on a terminal. keep: vectors to hold, float32. logits:
    hold those too. label: a function from images to labels, int (n,), which are held as well.
    """
    stats, vectors, scores, labels = None, [], [], []
    bar = tqdm(total=total, desc="features", unit="img", delay=2, disable=None)
    with bar:
        for batch in features.in_batches(chunks, network.batch_size):
            found = network.extract(batch)
            stats = statistics.add(
                statistics.empty(found.vectors.shape[1]) if stats is None else stats, found.vectors
            )
            room = keep - (stats.count - len(batch))
            if room > 0:
                vectors.append(found.vectors[:room])
            if logits:
                scores.append(found.logits)
            if label:
                labels.append(label(batch))
            bar.update(len(batch))
    dim = len(stats.total)
    kept = np.concatenate(vectors) if vectors else np.zeros((0, dim), np.float32)
    return Gathered(
        stats,
        kept,
        np.concatenate(scores) if logits else None,
        np.concatenate(labels) if label else None,
    )


def preprocessing(height: int, width: int, channels: int) -> str:
    """What becomes of images before they meet a feature network, in words."""
    return (
        f"{height} x {width} x {channels}: shorter side shrunk (bilinear, antialiased), "
        "centre crop, not mirrored"
    )


def of_dataset(
    dataset: Dataset, network: FeatureNetwork, *, split: str, num: int = 0, keep: int
) -> tuple[Gathered, statistics.Provenance]:
    """The features of `num` images of a set, 0: of all. split: how provenance calls its part."""
    info = dataset.info
    order = permutation(0, (REFERENCE_ORDER,), info.num_examples)
    ids = order[: num or len(order)]
    part = f", {len(ids)} of them" if len(ids) < len(order) else ""
    size = info.image_size
    provenance = features.provenance(
        network, f"{info.name} {split}{part}", preprocessing(size, size, info.channels)
    )
    chunks = _read(dataset, ids, network.batch_size)
    return gather(chunks, network, total=len(ids), keep=keep), provenance


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
    """The statistics of a whole set from the cache folder, made now if they are not there.

    keep: features that are needed; files that hold fewer are made anew. report: takes a line.
    """
    info = dataset.info
    what = [cache.fingerprint(dataset), split, dict(network.identity)]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{info.name.replace('/', '_')}-{network.name}-{digest}.npz"
    path = cache.folder() / "references" / name
    if path.exists():
        found = statistics.load(path)
        if len(found.features) >= min(keep, info.num_examples):
            return found
    report(
        f"features of the {info.num_examples:,} images of {info.name} {split}, once: kept in {path}"
    )
    gathered, provenance = of_dataset(dataset, network, split=split, keep=keep)
    statistics.save(path, gathered.stats, provenance, gathered.vectors)
    return statistics.load(path)


def data_config(
    name: str,
    *,
    split: str = "train",
    data_dir: str = "",
    image_size: int = 0,
    channels: int = 0,
) -> ConfigDict:
    """A config whose data are the set of that name; sizes of 0 are the set's own.

    Raises UserError if the set does not tell its sizes.
    """
    config = base_config()
    config.data.update(name=name, split=split, dir=data_dir)
    own = (image_size, channels) if image_size and channels else _own_size(name, data_dir)
    config.data.update(image_size=image_size or own[0], channels=channels or own[1])
    return config.lock()


_OURS = {"digits": (8, 1), "stacked_mnist": (32, 3)}


def _own_size(name: str, data_dir: str) -> tuple[int, int]:
    if name in _OURS:
        return _OURS[name]
    folder = catalog.resolve_data_dir(data_dir)
    builder = catalog.find_prepared(name, folder)
    if builder is None:
        raise UserError(
            f"{name} is not prepared in {folder}: {catalog.how_to_prepare(name, data_dir)}"
        )
    shapes = [f.shape for f in builder.info.features.values() if len(f.shape or ()) == 3]
    if len(shapes) != 1 or None in shapes[0] or shapes[0][0] != shapes[0][1]:
        raise UserError(
            f"the images of {name} have no common square size: give --image_size and --channels"
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
    """`ddgan reference`: writes the statistics of a set to `out` and returns them."""
    gathered, provenance = of_dataset(dataset, network, split=split, num=num, keep=keep)
    statistics.save(out, gathered.stats, provenance, gathered.vectors)
    return statistics.load(out)
