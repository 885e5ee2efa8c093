"""Read the labels of images from `metadata.csv` or `metadata.jsonl`, as Hugging Face keeps them.

Such a file lies beside the images or in the folder of a split. Its rows have `file_name`, a path
below its own folder, and `label`, a name or a number. Nothing that it names is opened: names are
only compared with those of the images.
"""

import codecs
import csv
import io
import json
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
# Characters of a label that is a name.
LONGEST_LABEL = 1000
_FILE_NAME, _LABEL = "file_name", "label"


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
            check_label(row.label, source)
            image = posixpath.join(posixpath.dirname(name), _normal(row.file_name))
            if image in labels:
                raise UserError(f"{shown(source, 300)} gives {shown(image)} a second label")
            labels[image] = row.label if row.label is not None else ""
    return labels


def check_label(label: Label | None, source: str) -> None:
    """Raise UserError for a text too long for a name, and for a number too large for a label."""
    if isinstance(label, str) and len(label) > LONGEST_LABEL:
        raise UserError(
            f"{shown(source, 300)} has a label of {len(label):,} characters: at most "
            f"{LONGEST_LABEL:,}"
        )
    if isinstance(label, int) and not -(2**63) <= label < 2**63:
        raise UserError(
            f"{shown(source, 300)} has a label that needs more than 64 bits: labels are from 0 to "
            f"{LARGEST_LABEL:,}"
        )


def _normal(file_name: str) -> str:
    """Return a path without "./" and the like; one that leads out of the folder stays as it is."""
    path = posixpath.normpath(file_name)
    return file_name if path.split("/")[0] in ("..", "") else path


def _check_columns(columns: Sequence[str], source: str) -> None:
    """Raise UserError if a column comes twice, or is missing and a similar one is there."""
    for name in (_FILE_NAME, _LABEL):
        if columns.count(name) > 1:
            raise UserError(f"{shown(source, 300)} has the column {name} twice")
        near = [column for column in columns if column.strip().lower() == name]
        if near and name not in columns:
            raise UserError(
                f"{shown(source, 300)} has a column '{shown(near[0])}': name it {name} if it is "
                "meant, or otherwise"
            )


def _csv_rows(content: bytes, source: str) -> Iterator[_Row]:
    with foreign.reading(source, "table in UTF-8 with commas"):
        table = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        _check_columns(table.fieldnames or (), source)
        if _FILE_NAME not in (table.fieldnames or ()):
            raise UserError(f"{shown(source, 300)} has no column file_name")
        for row in table:
            if None in row or None in row.values():
                raise UserError(f"{shown(source, 300)}: line {table.line_num} is no row of it")
            yield _Row(row[_FILE_NAME], row.get(_LABEL) or None)


def _lines(content: bytes, source: str) -> Iterator[_Row]:
    # Windows puts this mark before UTF-8.
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            where = f"{source}, line {number}"
            row = foreign.decode_json(line, _Row, source=where)
            # msgspec takes the last of two columns of one name.
            with foreign.reading(where, "JSON"):
                pairs = json.loads(line, object_pairs_hook=list, parse_int=str)
            _check_columns([name for name, _ in pairs], where)
            yield row


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
