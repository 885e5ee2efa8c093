"""Make sets from Parquet and Arrow files of images, for `ddgan prepare --parquet`."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ddgan_jax.data import image_checks, image_metadata, tables
from ddgan_jax.data.builders import ImageSet
from ddgan_jax.data.datasets import FILE
from ddgan_jax.data.folder_sets import checked, description
from ddgan_jax.data.image_layouts import Layout, check_names
from ddgan_jax.data.tables import Columns, Row
from ddgan_jax.errors import UserError, shown


def builder_of(
    path: str | os.PathLike, data_dir: Path, name: str, report: Callable[[str], None]
) -> ImageSet:
    """Return the builder of a TFDS set from the images of a file or of a folder of files.

    report: takes lines about what was found. Raises UserError if there is no such file, if one
    cannot be read, or if an image in it cannot be decoded.
    """
    root, splits = tables.find_files(path)
    where = _common_columns([file for files in splits.values() for file in files])
    check_names(os.fspath(root), where.names or ())
    # The first of two readings: images are looked at, and of each row only its label is kept.
    labels: dict[str, list[Any]] = {split: [] for split in splits}
    shapes: dict[str, list[image_checks.Form]] = {}
    for split, files in splits.items():
        shapes[split] = image_checks.forms_of(
            _noting(files, where, labels[split]),
            lambda row: (row.content, row.source),
            # A row holds an image file, where those of a folder are names.
            size=lambda row: len(row.content),
        )
    layout = _layout(root, where, labels)
    for line in description(layout, Counter()):
        report(line)
    forms = {
        name: form
        for split, images in layout.splits.items()
        for (name, _), form in zip(images, shapes[split], strict=True)
    }
    metadata = checked(layout, forms, report)
    return ImageSet(
        name,
        f"The images in {os.fsencode(root).decode(errors='replace')}.",
        (None, None, 3),
        layout.classes,
        {s: _examples(splits[s], where, images) for s, images in layout.splits.items()},
        data_dir,
        metadata,
    )


def _common_columns(files: Sequence[Path]) -> Columns:
    first = tables.columns(files[0])
    for file in files[1:]:
        if (other := tables.columns(file)) != first:
            raise UserError(
                f"{shown(file, 300)} has other columns or classes than {shown(files[0], 300)} "
                f"({shown(other)}): prepare one set at a time"
            )
    return first


def _rows(files: Sequence[Path], where: Columns) -> Iterator[Row]:
    return itertools.chain.from_iterable(tables.rows(file, where) for file in files)


def _noting(files: Sequence[Path], where: Columns, labels: list[Any]) -> Iterator[Row]:
    for row in _rows(files, where):
        labels.append(row.label)
        yield row


def _layout(root: Path, where: Columns, labels: dict[str, list[Any]]) -> Layout:
    """Return the layout; an image is called by its split and its place in it."""
    flat = [label for found in labels.values() for label in found]
    if not flat:
        raise UserError(f"{shown(root, 300)} has no rows")
    classes: Sequence[str] | int | None = where.names
    numbers: Sequence[int | None] = flat
    if where.label is not None and classes is None:
        classes, numbers = image_metadata.numbered(flat, os.fspath(root))
        check_names(os.fspath(root), () if isinstance(classes, int) else classes)
    left = iter(numbers)
    splits = {
        split: [(f"{split}/{k:09d}", next(left)) for k in range(len(found))]
        for split, found in labels.items()
    }
    return Layout({s: images for s, images in splits.items() if images}, classes, Counter())


def _examples(
    files: Sequence[Path], where: Columns, images: Sequence[tuple[str, int | None]]
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for (name, label), row in zip(images, _rows(files, where), strict=True):
        example = {"image": row.content, FILE: name.encode()}
        yield name.encode(), example if label is None else example | {"label": label}
