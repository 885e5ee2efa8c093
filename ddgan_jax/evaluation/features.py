"""Feature networks: what turns images into the vectors that sets of images are compared by.

    inception    the network of published numbers, from a file that `ddgan import inception` makes
    classifier   one that this project trains on the data set at hand
    pixels       the images themselves, averaged down to LARGEST_PIXELS numbers or fewer

Each is a value: what it is, and a function from uint8 images to features, over all devices of this
process, the same for any number of them. Only numbers of equal `identity` compare, and only those
of `inception` have the names by which papers call them.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddgan_jax import distributed, randomness
from ddgan_jax.distributed import Devices
from ddgan_jax.errors import UserError
from ddgan_jax.files.paths import cache_folder
from ddgan_jax.metrics.statistics import Provenance

if TYPE_CHECKING:
    from ddgan_jax.data import Dataset

LARGEST_PIXELS = 1024
BATCH_SIZE = 32  # images that a device gets at a time


class Features(NamedTuple):
    """Of N images. logits: None where the network names no classes."""

    vectors: np.ndarray  # float32 (N, D)
    logits: np.ndarray | None  # float32 (N, classes)


class FeatureNetwork(NamedTuple):
    """A feature network.

    name: one of `metrics.names.FEATURES`. identity: what JSON can hold: with the name the protocol,
    the checksum of the weights, the accuracy of a classifier, where there are such. extract:
    features of uint8 images (N, H, W, C), any N >= 1. batch_size: images that make `extract` a
    whole batch.
    """

    name: str
    identity: Mapping[str, Any]
    extract: Callable[[np.ndarray], Features]
    batch_size: int


def open_network(
    name: str,
    dataset: "Callable[[], Dataset]",
    *,
    protocol: str = "tf1",
    inception_file: str | os.PathLike = "",
    report: Callable[[str], None],
) -> FeatureNetwork:
    """The network of that name, on the devices of this process.

    dataset: opens the set at hand, on which a classifier is trained if it is not in the cache;
    report takes lines about that. protocol, inception_file: of inception, the file "" for the one
    in the cache folder. Raises UserError for files that are missing or damaged, and for sets
    without classes.
    """
    devices = distributed.local_devices()
    if name == "inception":
        network = inception(inception_file or default_inception_file(), protocol, devices)
    elif name == "classifier":
        network = classifier(dataset(), devices, report)
    else:
        network = pixels(devices)
    return network._replace(extract=randomness.reproducible()(network.extract))


def default_inception_file() -> str:
    """Return where the converted Inception weights are looked for.

    Raises UserError where there is no home folder.
    """
    folder = cache_folder()
    if folder is None:
        raise UserError(
            "there is no home folder, in which the Inception weights would lie: name their file"
        )
    return os.fspath(folder / "inception.npz")


def inception(path: str | os.PathLike, protocol: str, devices: Devices) -> FeatureNetwork:
    """The FID InceptionV3. Raises UserError for a file that is missing or damaged."""
    from ddgan_jax.evaluation import inception as network
    from ddgan_jax.interop.inception import load

    weights = load(path)
    params = jax.device_put(weights.params, distributed.replicated(devices))
    batch_size = BATCH_SIZE * len(devices)

    def extract(images: np.ndarray) -> Features:
        return Features(
            *network.features(params, images, protocol, batch_size=batch_size, devices=devices)
        )

    identity = {
        "network": "inception",
        "protocol": protocol,
        "weights_sha256": weights.sha256,
        "source_sha256": weights.source_sha256,
    }
    return FeatureNetwork("inception", identity, extract, batch_size)


def classifier(
    dataset: "Dataset", devices: Devices, report: Callable[[str], None]
) -> FeatureNetwork:
    """A classifier of the set: trained at first use, see `classifier.of_dataset`."""
    from ddgan_jax.evaluation import classifier as classifiers
    from ddgan_jax.models.classifier import classify

    trained = classifiers.of_dataset(dataset, report)
    params = jax.device_put(trained.params, distributed.replicated(devices))
    mapped = distributed.map_examples(classify, devices)
    batch_size = BATCH_SIZE * len(devices)

    def extract(images: np.ndarray) -> Features:
        results = distributed.in_batches(lambda batch: mapped(params, batch), images, batch_size)
        return Features(*results)

    about = trained.about
    identity = {
        "network": "classifier",
        **{name: about[name] for name in ("dataset", "accuracy", "held_out", "weights_sha256")},
    }
    return FeatureNetwork("classifier", identity, extract, batch_size)


def pixels(devices: Devices) -> FeatureNetwork:
    """Pixels in [-1, 1], averaged over equal cells where there are more than LARGEST_PIXELS."""
    mapped = distributed.map_examples(lambda _, images: average_pixels(images), devices)
    batch_size = BATCH_SIZE * len(devices)

    def extract(images: np.ndarray) -> Features:
        averaged = distributed.in_batches(lambda batch: mapped((), batch), images, batch_size)
        return Features(averaged, None)

    identity = {"network": "pixels", "largest": LARGEST_PIXELS}
    return FeatureNetwork("pixels", identity, extract, batch_size)


def average_pixels(images: jax.Array) -> jax.Array:
    """uint8 images (B, H, W, C) as float32 (B, D), [-1, 1], D <= LARGEST_PIXELS."""
    height, width, channels = images.shape[1:]
    side = int((LARGEST_PIXELS / channels) ** 0.5)
    rows, columns = (cell_matrix(size, min(size, side)) for size in (height, width))
    x = images.astype(jnp.float32) / 127.5 - 1
    cells = jnp.einsum("ah,bhwc,ew->baec", rows, x, columns, precision="highest")
    return cells.reshape(len(images), -1)


def cell_matrix(size: int, cells: int) -> np.ndarray:
    """Means of an axis over equal cells, float32 (cells, size): each row adds to 1.

    Cell i reaches from i size / cells to (i + 1) size / cells; a pixel on the border of two counts
    in both with the part that lies there.
    """
    edges = np.arange(cells + 1) * (size / cells)
    pixels = np.arange(size)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return (np.maximum(high - low, 0) * (cells / size)).astype(np.float32)


def provenance(network: FeatureNetwork, dataset: str, preprocessing: str) -> Provenance:
    """What statistics of the network's features say of themselves; see `statistics.Provenance`."""
    identity = network.identity
    return Provenance(
        protocol=identity.get("protocol", "none"),
        weights_sha256=identity.get("weights_sha256", "none"),
        dataset=dataset,
        preprocessing=preprocessing,
        network=network.name,
    )
