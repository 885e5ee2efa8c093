"""Hold a set of images in memory, in files, or as triples of images of another set.

All three forms are read in the same way, by example ids, and give the same bytes.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds

from ddgan_jax.data import decode
from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files import foreign
from ddgan_jax.progress import Display

# Feature of sets made from files, as TFDS calls it.
FILE = "image/filename"
# Examples that a fingerprint reads.
LOOKED_AT = 64
# Examples that one thread decodes at a time when a set is loaded into memory.
CHUNK = 64


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The facts about a set that the rest of the program needs.

    image_size: height and width, pixels. num_classes: 0 for sets without labels. digest: the
    SHA-256 of all examples of the whole set, "" if it is not known.
    """

    name: str
    num_examples: int
    image_size: int
    channels: int
    num_classes: int
    digest: str = ""


class Dataset(Protocol):
    """Images that can be read in any order."""

    @property
    def info(self) -> DatasetInfo:
        """Return the set's name and sizes."""
        ...

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return examples by id, int (n,) in [0, num_examples), with repetitions if asked for.

        They are uint8 images (n, h, w, c) and int32 labels (n,), 0 for sets without labels. Raises
        UserError that names an example which cannot be read.
        """
        ...


def fingerprint(dataset: Dataset) -> str:
    """Return 16 hexadecimal digits that differ between sets, splits, sizes and versions.

    They depend on the set's name, sizes and digest, and on some of its examples, evenly spread.
    Neither the form that holds the set nor its folder makes a difference.
    """
    info = dataset.info
    # Reading all examples would take minutes at every start of a run.
    ids = np.unique(np.linspace(0, info.num_examples - 1, LOOKED_AT).astype(np.int64))
    pixels, labels = dataset.read(ids)
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(info), sort_keys=True).encode())
    digest.update(pixels.tobytes() + labels.tobytes())
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayDataset:
    """A set in memory. images: uint8 (N, H, W, C), or float32 points; labels: int32 (N,)."""

    info: DatasetInfo
    images: np.ndarray
    labels: np.ndarray

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return examples by id, see `Dataset.read`."""
        return self.images[ids], self.labels[ids]


@dataclasses.dataclass(frozen=True, eq=False)
class StackedDataset:
    """Gray images of one set, stacked three at a time as the channels of an RGB image.

    gray: uint8 (M, H, W). digits: int32 (M,), 0 .. 9. members: int (3, N), the positions in `gray`
    of the red, green and blue channel of each example. The label is 100 red + 10 green + blue.
    """

    info: DatasetInfo
    gray: np.ndarray
    digits: np.ndarray
    members: np.ndarray

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return examples by id, see `Dataset.read`."""
        members = self.members[:, ids]
        red, green, blue = self.digits[members]
        return np.stack(list(self.gray[members]), axis=-1), 100 * red + 10 * green + blue


@dataclasses.dataclass(frozen=True, eq=False)
class RecordDataset:
    """A prepared TFDS set that is read and decoded when asked for.

    read_records: returns serialised examples by id; many at a time are far faster than one by one.
    features: the features of an example, of which `image_key` and `label_key` (None without labels)
    are used. location: the folder, for messages. threads: the number that should read at a time.
    hold: a lock that keeps the files from being removed while they are read, if they need one.
    small: what becomes of smaller images, see `decode.fit`. places: int (n,), the places in the
    files of the examples, in their order; None for the first n.
    """

    info: DatasetInfo
    read_records: Callable[[list[int]], Sequence[Any]]
    features: tfds.features.FeaturesDict
    image_key: str
    label_key: str | None
    location: str
    threads: int
    hold: IO | None = None
    small: str = "refuse"
    places: np.ndarray | None = None

    def restricted_to(self, ids: np.ndarray) -> "RecordDataset":
        """Return the set of these examples alone, int (n,), in this order."""
        places = ids if self.places is None else self.places[ids]
        info = dataclasses.replace(self.info, num_examples=len(ids))
        return dataclasses.replace(self, info=info, places=places)

    def shorter_sides(self, ids: np.ndarray) -> list[int]:
        """Return the width or height, whichever is less, of images by id, without decoding them.

        Raises UserError for an image that is none.
        """
        return [
            decode.shorter_side(image, source) if isinstance(image, bytes) else min(image.shape[:2])
            for image, _, source in self._examples(ids)
        ]

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return examples by id, see `Dataset.read`."""
        examples = [
            (self._pixels(image, source), self._checked(label, source))
            for image, label, source in self._examples(ids)
        ]
        pixels, labels = zip(*examples, strict=True)
        return np.stack(pixels), np.array(labels, np.int32)

    def _examples(self, ids: np.ndarray) -> Iterator[tuple[bytes | np.ndarray, int, str]]:
        """Yield the image of each example as it is stored, its label, and its name."""
        places = (ids if self.places is None else self.places[ids]).tolist()
        with foreign.reading(self._name, "set of images"):
            records = self.read_records(places)
        # TFDS parses the record, and `decode` decodes the image in it.
        encoded = _keep_encoded(self.features)
        for place, record in zip(places, records, strict=True):
            yield self._parsed(place, record, encoded)

    @property
    def _name(self) -> str:
        return f"{self.info.name} in {self.location}"

    def _parsed(
        self, place: int, record: bytes, decoders: Mapping[str, Any]
    ) -> tuple[bytes | np.ndarray, int, str]:
        source = f"example {place} of {self._name}"
        with foreign.reading(source, "example of such a set"):
            example: Any = self.features.deserialize_example_np(record, decoders=decoders)
            image = example[self.image_key]
            label = 0 if self.label_key is None else int(example[self.label_key])
            # A person can find a file by its name, but not an example by its number.
            if FILE in example:
                source = f"example {place} ({os.fsdecode(example[FILE])}) of {self._name}"
        return image, label, source

    def _checked(self, label: int, source: str) -> int:
        # A label out of range would silently take the embedding of another class on a device.
        if not 0 <= label < max(self.info.num_classes, 1):
            raise UserError(
                f"{shown(source, 300)} has the label {label}, and the set has "
                f"{self.info.num_classes} classes"
            )
        return label

    def _pixels(self, image: bytes | np.ndarray, source: str) -> np.ndarray:
        channels = self.info.channels
        # Sets mocked by TFDS hand out pixels; real ones leave the decoding to us.
        if isinstance(image, bytes):
            pixels = decode.decode(image, channels, source)
        else:
            pixels = decode.convert_channels(image, channels)
        return decode.fit(pixels, self.info.image_size, source, small=self.small)


def _keep_encoded(features: tfds.features.FeaturesDict) -> Mapping[str, Any]:
    """Return decoders that leave every image as the bytes of its file.

    TFDS's own decoding depends on whether OpenCV is installed, takes the indices of a palette for
    colours, and would decode masks that nobody needs.
    """
    skip = tfds.decode.SkipDecoding()
    return {k: skip for k, v in features.items() if isinstance(v, tfds.features.Image)}


@contextlib.contextmanager
def own_words() -> Iterator[None]:
    """Reduce the message of a UserError to its first line: Grain's threads add further ones."""
    try:
        yield
    except UserError as error:
        # Messages of this program are one line.
        raise UserError(reason(error)) from error.__cause__


def load_into_memory(dataset: RecordDataset) -> ArrayDataset:
    """Decode a whole set once, `dataset.threads` at a time, with its progress on a terminal."""
    info = dataset.info
    # Threads write into their rows of the result, so that nothing is copied afterwards.
    pixels = np.empty(
        (info.num_examples, info.image_size, info.image_size, info.channels), np.uint8
    )
    labels = np.empty(info.num_examples, np.int32)

    def decode(ids: np.ndarray) -> None:
        pixels[ids], labels[ids] = dataset.read(ids)

    in_chunks(decode, dataset, title=f"reading {info.name}")
    return ArrayDataset(info, pixels, labels)


def in_chunks(look: Callable[[np.ndarray], None], dataset: RecordDataset, title: str) -> None:
    """Call `look` with the ids of all examples, int (n,), a few at a time, in several threads."""
    count = dataset.info.num_examples

    def call(start: int) -> int:
        ids = np.arange(start, min(start + CHUNK, count))
        look(ids)
        return len(ids)

    # Decoders release Python's lock, so that threads are enough.
    chunks = grain.MapDataset.range(0, count, CHUNK).map(call)
    options = grain.ReadOptions(num_threads=dataset.threads, prefetch_buffer_size=dataset.threads)
    display = Display(count, title=title, unit="images")
    # The iterator is closed also after an error, or its threads would go on reading.
    with (
        own_words(),
        display,
        contextlib.closing(iter(chunks.to_iter_dataset(options))) as done,
    ):
        for number in done:
            display.advance(number)
