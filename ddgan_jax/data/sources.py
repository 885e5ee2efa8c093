"""Open the data set that a config names: find it, check it, load it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax.data import builders, catalog, folder_sets, mixture, prepared, selection, stacks
from ddgan_jax.data.datasets import (
    ArrayDataset,
    Dataset,
    DatasetInfo,
    RecordDataset,
    StackedDataset,
    load_into_memory,
)
from ddgan_jax.errors import UserError, reason

Report = Callable[[str], None]


def _say_nothing(line: str) -> None:
    del line


def open_dataset(config: ConfigDict, *, report: Report = _say_nothing) -> Dataset:
    """Open the set that `config.data` describes, and read its first example.

    A set whose pixels fit `data.memory_limit_mib` is decoded into memory, others while training.
    `digits` and `folder` are written to the data folder on their first use. report: takes a line
    about images that `data.resize` leaves out.

    Raises:
      UserError: no such set, not prepared, not readable, or images or classes that do not fit the
        config.
    """
    dataset = _open(config.data, report)
    # A network for another number of classes would train without an error.
    wanted, there = config.data.num_classes, dataset.info.num_classes
    # With 0 the labels of a set are not used.
    if wanted not in (0, there):
        has = f"{there} classes: set it to {there}, or to 0" if there else "no classes: set it to 0"
        raise UserError(f"data.num_classes={wanted}, but {config.data.name} has {has}")
    return dataset


def _open(data: ConfigDict, report: Report) -> Dataset:
    if data.name in stacks.SETS:
        return _stacked(data, report)
    if data.name in mixture.SETS:
        return _mixture(data)
    builder, hold = _find(data)
    records = _open_records(builder, data, data.image_size, data.channels, report, hold)
    # A set that cannot be read fails here, and not after minutes of compilation.
    records.read(np.array([0]))
    # Pixels are bytes. Decoding once and reading from memory is far faster than any decoder.
    size = records.info.num_examples * data.image_size**2 * data.channels
    return load_into_memory(records) if size <= data.memory_limit_mib * 2**20 else records


def _mixture(data: ConfigDict) -> ArrayDataset:
    points, labels = mixture.points()
    count = _limited(len(points), data.max_examples)
    info = DatasetInfo(data.name, count, 1, 2, mixture.SIDE**2)
    return ArrayDataset(info, mixture.to_set(data.name, points), labels)


def _stacked(data: ConfigDict, report: Report) -> StackedDataset:
    """Return triples of gray digits, see `stacks`.

    Digits and not triples are held out, so that no training sees a digit of the other part.
    """
    stack = stacks.SETS[data.name]
    size, channels = stack.image_size, stacks.CHANNELS
    if (data.image_size, data.channels) != (size, channels):
        raise UserError(
            f"{data.name} has {size}x{size}x{channels} images: set data.image_size={size} "
            f"data.channels={channels}"
        )
    # The limit on examples counts triples, and not the digits that they are made of.
    gray = data.copy_and_resolve_references()
    gray.name, gray.max_examples = stack.gray, 0
    digits = load_into_memory(_open_records(_find(gray)[0], gray, stack.gray_size, 1, report))
    whole = stacks.stacked(data.name, digits)
    count = _limited(whole.info.num_examples, data.max_examples)
    return dataclasses.replace(whole, info=dataclasses.replace(whole.info, num_examples=count))


def _find(data: ConfigDict) -> tuple[tfds.core.DatasetBuilder, IO | None]:
    """Return the builder of the set, and the lock on its files if they need one.

    `digits` and `folder` are written first if they are not there.
    """
    catalog.check_places(data)
    data_dir = catalog.resolve_data_dir(data.dir)
    if data.name == "digits" and isinstance(data_dir, Path):
        return prepared.open_prepared(builders.write_digits(data_dir)), None
    if data.name == "folder":
        copy = folder_sets.open_copy(data.path, Path(data_dir))
        return prepared.open_prepared(copy.folder), copy.hold
    if not data.name:
        known = ", ".join(catalog.OWN)
        raise UserError(f"data.name is empty: give a TFDS name, or one of {known}")
    if found := catalog.find_prepared(data.name, data_dir):
        return found, None
    try:
        # The set is not prepared, which the first reading will say, or it is mocked in a test.
        return catalog.tfds_builder(data.name, data_dir), None
    except ImportError as error:
        raise UserError(_missing(data, data_dir / data.name)) from error


def _open_records(
    builder: tfds.core.DatasetBuilder,
    data: ConfigDict,
    image_size: int,
    channels: int,
    report: Report,
    hold: IO | None = None,
) -> RecordDataset:
    # The features say which entries of an example are the image and the label.
    features = catalog.features_of(builder)
    image_key, label_key = _keys(data.name, features)
    folder, split = epath.Path(builder.data_dir), selection.whole_split(data.split)
    try:
        # A decorator of TFDS hides the arguments from type checkers.
        read_split: Any = builder.as_data_source
        source = read_split(split, file_format="array_record")
        count = _limited(len(source), data.max_examples)
    except (KeyError, NotImplementedError, ValueError) as error:
        raise UserError(_not_readable(builder, data, error)) from error
    # A mocked set of a test has no files.
    if prepared.is_prepared(folder):
        prepared.check_shards(folder, builder.info.splits[split].file_instructions)
    label: Any = None if label_key is None else features[label_key]
    classes = 0 if label is None else label.num_classes
    metadata = prepared.metadata(folder)
    records = RecordDataset(
        DatasetInfo(data.name, count, image_size, channels, classes or 0, metadata.sha256),
        _reader(source.data_source),
        features,
        image_key,
        label_key,
        str(folder),
        data.decode_threads,
        hold,
        small=data.resize,
    )
    # Of most sets in arrays the features tell the one size that all images have.
    shape: Any = features[image_key].shape
    sides: Any = (shape or (None, None))[:2]
    size = 0 if None in sides else min(sides)
    smallest = metadata.smallest_side
    return selection.choose(records, data, size=size, smallest=smallest, report=report)


def _reader(records: Any) -> Callable[[list[int]], Sequence[Any]]:
    if isinstance(records, ArrayRecordDataSource):
        return records.__getitems__
    # The records of tfds.testing.mock_data have no other way.
    return lambda ids: [records[id_] for id_ in ids]


def _limited(count: int, max_examples: int) -> int:
    return min(count, max_examples) if max_examples else count


def _keys(name: str, features: tfds.features.FeaturesDict) -> tuple[str, str | None]:
    """Return the names of the image feature and of the label feature (None without labels).

    They are found by their types. Raises UserError if no feature is the only candidate for images.
    """
    pictures = [
        k
        for k, v in features.items()
        if isinstance(v, tfds.features.Image) and v.np_dtype == np.uint8
    ]
    classes = [k for k, v in features.items() if isinstance(v, tfds.features.ClassLabel)]
    # Sets call their features as they like; the usual name decides where there are several.
    image = "image" if "image" in pictures else pictures[0] if len(pictures) == 1 else None
    label = "label" if "label" in classes else classes[0] if len(classes) == 1 else None
    if image is None:
        found = ", ".join(f"{k} ({type(v).__name__})" for k, v in features.items())
        raise UserError(f"{name} has no single 8-bit image feature; it has: {found}")
    return image, label


def _not_readable(builder: tfds.core.DatasetBuilder, data: ConfigDict, error: Exception) -> str:
    folder = epath.Path(builder.data_dir)
    if not prepared.is_prepared(folder):
        return _missing(data, folder)
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if "array_record" not in formats:
        return (
            f"{data.name} in {folder} is prepared as {', '.join(formats)}, which cannot be read in "
            "any order; prepare it as array_record in another folder, which data.dir names: "
            f"{catalog.how_to_prepare(data.name, 'FOLDER')}"
        )
    splits = ", ".join(
        f"{name} ({split.num_examples})" for name, split in builder.info.splits.items()
    )
    return (
        f"data.split = {data.split!r} selects nothing of {data.name}, which has {splits}: "
        f"{reason(error)}"
    )


def _missing(data: ConfigDict, folder: catalog.Place) -> str:
    how = catalog.how_to_prepare(data.name, data.dir)
    return f"{data.name} is not prepared in {folder}: {how}"
