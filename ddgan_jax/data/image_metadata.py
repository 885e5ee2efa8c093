"""Read the labels of images from `metadata.csv` or `metadata.jsonl`, as Hugging Face keeps them.

Such a file lies beside the images or in the folder of a split. Its rows have `file_name`, a path
below its own folder, and `label`, a name or a number. Nothing that it names is opened: names are
only compared with those of the images.
"""

import csv
import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ddgan_jax.data.array_files import LARGEST_LABEL, num_classes
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign

NAMES = ("metadata.csv", "metadata.jsonl")
Label = str | int


class _Row(msgspec.Struct):
    """A row. Its other columns, such as captions, are not read."""

    file_name: str
    label: str | int | None = None


def read_labels(files: Mapping[str, bytes], root: str) -> dict[str, Label]:
    """Return the label of each image that the files name; empty if they hold no labels.

    files: contents by their names, with slashes, below `root`. Raises UserError for a file of
    another form, for rows of which only some have a label, and for two rows of one image.
    """
    labels: dict[str, Label] = {}
    for name, content in sorted(files.items()):
        source = f"{root}/{name}"
        rows = list(
            _csv_rows(content, source) if name.endswith(".csv") else _lines(content, source)
        )
        missing = [row.file_name for row in rows if row.label is None]
        if len(missing) == len(rows):
            continue
        if missing:
            raise UserError(
                f"{shown(source, 300)} gives no label to {len(missing):,} of its {len(rows):,} "
                f"images, such as {shown(missing[0])}"
            )
        for row in rows:
            image = posixpath.join(posixpath.dirname(name), row.file_name)
            if image in labels:
                raise UserError(f"{shown(source, 300)} gives {shown(image)} a second label")
            labels[image] = row.label if row.label is not None else ""
    return labels


def _csv_rows(content: bytes, source: str) -> Iterator[_Row]:
    with foreign.reading(source, "table in UTF-8 with commas"):
        table = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        if "file_name" not in (table.fieldnames or ()):
            raise UserError(f"{shown(source, 300)} has no column file_name")
        for row in table:
            if None in row or None in row.values():
                raise UserError(f"{shown(source, 300)}: line {table.line_num} is no row of it")
            yield _Row(row["file_name"], row.get("label") or None)


def _lines(content: bytes, source: str) -> Iterator[_Row]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield foreign.decode_json(line, _Row, source=f"{source}, line {number}")


def numbered(labels: Sequence[Label], source: str) -> tuple[Sequence[str] | int, list[int]]:
    """Return the classes of labels, and the number of the class of each.

    The classes are their number if all labels are whole numbers, else their sorted names. source:
    how messages call the labels. Raises UserError for numbers with gaps.
    """
    texts = [str(label) for label in labels]
    # A table of text does not tell numbers from names; digits alone are numbers.
    if all(text.isascii() and text.isdigit() and len(text) < 11 for text in texts):
        numbers: Any = np.array([int(text) for text in texts], np.int64)
        if numbers.max() > LARGEST_LABEL:
            raise UserError(f"{shown(source, 300)}: labels are from 0 to {LARGEST_LABEL:,}")
        return num_classes(numbers, source), numbers.tolist()
    names = sorted(set(texts))
    place = {name: k for k, name in enumerate(names)}
    return names, [place[text] for text in texts]
