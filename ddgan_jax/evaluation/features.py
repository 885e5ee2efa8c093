"""Open the feature networks, which turn images into the vectors by which sets are compared.

    inception    the network of published numbers, from a file that `ddgan import inception` makes
    classifier   one that this project trains on the data set at hand
    pixels       the images themselves, averaged down to LARGEST_PIXELS numbers or fewer

Each is a value that holds its identity and a function from uint8 images to features. The function
uses all devices of this process and gives the same features for any number of them. Only numbers of
equal identity can be compared, and only those of `inception` have the names that papers use.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ddgan_jax import distributed, randomness
from ddgan_jax.distributed import Devices
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation.batching import call_in_batches
from ddgan_jax.files.paths import cache_folder
from ddgan_jax.metrics.statistics import Provenance
from ddgan_jax.pixels import to_float

if TYPE_CHECKING:
    from ddgan_jax.data import Dataset

# Numbers in a vector of pixels: covariances take its square.
LARGEST_PIXELS = 1024
# Images that a device gets at a time.
BATCH_SIZE = 32


class Features(NamedTuple):
    """The features of n images. logits: None for a network without classes."""

    vectors: Float[np.ndarray, "n d"]
    logits: Float[np.ndarray, "n classes"] | None


class FeatureNetwork(NamedTuple):
    """A feature network.

    name: One of `metrics.names.FEATURES`. identity: Everything that its features depend on, as JSON
    holds it: the name, and where there are such the protocol, the checksum of the weights and the
    accuracy of a classifier. extract: Returns the features of uint8 images (n, h, w, c), n >= 1.
    batch_size: The number of images for which `extract` wastes no work.
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
    """Open a feature network on the devices of this process.

    Args:
      name: One of `metrics.names.FEATURES`.
      dataset: Opens the set at hand, on which a classifier is trained if none is in the cache.
      protocol: One of `metrics.names.PROTOCOLS`, for inception.
      inception_file: The converted weights, "" for those in the cache folder.
      report: Takes lines about the training of a classifier.

    Raises UserError for files that are missing or damaged, and for sets without classes.
    """
    devices = distributed.local_devices()
    if name == "inception":
        network = inception(inception_file or default_inception_file(), protocol, devices)
    elif name == "classifier":
        network = classifier(dataset(), devices, report)
    else:
        network = pixels(devices)
    # Features must not depend on the variables with which a user tunes JAX.
    return network._replace(extract=randomness.reproducible()(network.extract))


def default_inception_file() -> str:
    """Return the path of the converted Inception weights in the cache folder.

    Raises UserError where there is no home folder.
    """
    folder = cache_folder()
    if folder is None:
        raise UserError(
            "there is no home folder, in which the Inception weights would lie: name their file"
        )
    return os.fspath(folder / "inception.npz")


def inception(path: str | os.PathLike, protocol: str, devices: Devices) -> FeatureNetwork:
    """Return the FID InceptionV3. Raises UserError for a file that is missing or damaged."""
    # Here: the other feature networks need no Flax network of 2048 features.
    from ddgan_jax.evaluation import inception as network
    from ddgan_jax.interop.inception import load

    # The checksum of the weights is part of the identity, so that results say which they came from.
    weights = load(path)
    # The weights are placed once, since every call would otherwise copy them to the devices again.
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
    """Return the classifier of a set as a feature network; see `classifier.of_dataset`."""
    from ddgan_jax.evaluation import classifier as classifiers
    from ddgan_jax.models.classifier import classify

    trained = classifiers.of_dataset(dataset, report)
    params = jax.device_put(trained.params, distributed.replicated(devices))
    # The same compiled program for any number of images: the last batch is filled up.
    mapped = distributed.map_examples(classify, devices)
    batch_size = BATCH_SIZE * len(devices)

    def extract(images: np.ndarray) -> Features:
        results = call_in_batches(lambda batch: mapped(params, batch), images, batch_size)
        return Features(*results)

    about = trained.about
    identity = {
        "network": "classifier",
        **{name: about[name] for name in ("dataset", "accuracy", "held_out", "weights_sha256")},
    }
    return FeatureNetwork("classifier", identity, extract, batch_size)


def pixels(devices: Devices) -> FeatureNetwork:
    """Return the pixels as features, averaged over cells if there are more than LARGEST_PIXELS."""
    mapped = distributed.map_examples(lambda _, images: average_pixels(images), devices)
    batch_size = BATCH_SIZE * len(devices)

    def extract(images: np.ndarray) -> Features:
        averaged = call_in_batches(lambda batch: mapped((), batch), images, batch_size)
        return Features(averaged, None)

    # The largest size is part of the identity: another one gives other vectors of the same images.
    identity = {"network": "pixels", "largest": LARGEST_PIXELS}
    return FeatureNetwork("pixels", identity, extract, batch_size)


def average_pixels(images: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
    """Return images as float32 vectors in [-1, 1] of at most LARGEST_PIXELS numbers."""
    height, width, channels = images.shape[1:]
    # A product with two matrices averages any size, also one that the cells do not divide.
    side = int((LARGEST_PIXELS / channels) ** 0.5)
    rows, columns = (cell_matrix(size, min(size, side)) for size in (height, width))
    x = to_float(images)
    # With the default precision TPUs would round pixels to bfloat16.
    cells = jnp.einsum("ah,bhwc,ew->baec", rows, x, columns, precision="highest")
    return cells.reshape(len(images), -1)


def cell_matrix(size: int, cells: int) -> Float[np.ndarray, "cells size"]:
    """Return the matrix that averages an axis over equal cells, float32.

    Cell i reaches from i size / cells to (i + 1) size / cells. A pixel on the border of two cells
    counts in both, each time with the part of it that lies there. Each row adds up to 1.
    """
    # The overlap of every cell with every pixel, both as intervals on the axis.
    edges = np.arange(cells + 1) * (size / cells)
    pixels = np.arange(size)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return (np.maximum(high - low, 0) * (cells / size)).astype(np.float32)


def provenance(network: FeatureNetwork, dataset: str, preprocessing: str) -> Provenance:
    """Return the provenance of statistics of the network's features."""
    identity = network.identity
    return Provenance(
        # A file of statistics has text in all of its fields.
        protocol=identity.get("protocol", "none"),
        weights_sha256=identity.get("weights_sha256", "none"),
        dataset=dataset,
        preprocessing=preprocessing,
        network=network.name,
    )
