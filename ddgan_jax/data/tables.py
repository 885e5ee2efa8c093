"""Read images from Parquet and Arrow files, as Hugging Face's `datasets` keeps them.

One column holds image files, as bytes or as structs of `bytes` and `path`; another may hold labels,
whose names lie in the schema. A path that such a file names is never opened. Rows come a few at
a time, so that memory does not grow with the size of a file.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddgan_jax.data import image_metadata
from ddgan_jax.data.image_folders import LARGEST_FILE
from ddgan_jax.data.image_layouts import SPLITS, TRAIN
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign, paths

WHAT = "Parquet or Arrow file"
SUFFIXES = (".parquet", ".arrow")
# Rows that are decompressed at a time, and their bytes, unless one row has more.
ROWS = 8
LARGEST_BATCH = 2**28
# Bytes that are read at a time.
BUFFER = 2**20
# No file of an image is as short: a file claims no more rows than it has bytes for.
SHORTEST_IMAGE = 16
# A split in a file's name, or in that of its folder, as `datasets` finds it.
_SPLIT = re.compile(rf"(?:^|[-._/ 0-9])({'|'.join(SPLITS)})(?:[-._/ 0-9]|$)")
_MAGIC = b"PAR1"


class Columns(NamedTuple):
    """The columns of a table that are read.

    label: None for a table without labels. names: of the classes, in the order of the labels; None
    where the labels themselves are names or plain numbers.
    """

    image: str
    label: str | None
    names: tuple[str, ...] | None


class Row(NamedTuple):
    """An image file, its label, and how messages call it."""

    content: bytes
    label: str | int | None
    source: str


class _Feature(msgspec.Struct):
    type_: str = msgspec.field(name="_type", default="")
    names: tuple[str, ...] | None = None


class _Info(msgspec.Struct):
    features: dict[str, Any] = {}


class _Huggingface(msgspec.Struct):
    info: _Info = msgspec.field(default_factory=_Info)


def find_files(path: str | os.PathLike) -> tuple[Path, Mapping[str, Sequence[Path]]]:
    """Return the path, and the Parquet and Arrow files of each split: a file, or those of a folder.

    Hidden names and links are left out. Raises UserError if there is none.
    """
    root = Path(paths.user_path(path, "parquet"))
    with foreign.reading(root, f"{WHAT}, or folder of them"):
        if paths.is_bucket(path):
            raise UserError(f"tables are read from local or mounted folders: copy or mount {path}")
        found = [root] if not root.is_dir() else list(_below(root))
        if not found:
            raise UserError(f"no {' or '.join(SUFFIXES)} file below {shown(root, 300)}")
    splits: dict[str, list[Path]] = {}
    for file in sorted(found):
        inside = file.name if file == root else os.fspath(file.relative_to(root))
        named = _SPLIT.findall(inside.lower())
        splits.setdefault(named[-1] if named else TRAIN, []).append(file)
    return root, splits


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            file = Path(folder, name)
            is_one = name.lower().endswith(SUFFIXES) and not name.startswith(".")
            if is_one and not file.is_symlink():
                yield file


def columns(path: Path) -> Columns:
    """Return the columns of images and labels. Raises UserError if they are not clear."""
    with foreign.open_regular(path, WHAT) as file:
        schema = _open(file)[0]
        features = _features(schema, path)
        pictures = [field.name for field in schema if _holds_files(field.type)]
        image = "image" if "image" in pictures else pictures[0] if len(pictures) == 1 else None
        if image is None:
            there = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise UserError(
                f"{shown(path, 300)} has no single column of image files; it has: {shown(there)}"
            )
        labels = [name for name, feature in features.items() if feature.type_ == "ClassLabel"]
        plain = [f.name for f in schema if f.name == "label" and _is_label(f.type)]
        label = "label" if "label" in [*labels, *plain] else labels[0] if len(labels) == 1 else None
        return Columns(image, label, features[label].names if label in labels else None)


def _features(schema: pa.Schema, path: Path) -> dict[str, _Feature]:
    """Return what `datasets` has written about the columns; nothing where it has not."""
    content = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = foreign.decode_json(content, _Huggingface, source=path).info.features
    # Lists of features, and features of other kinds, tell nothing about labels.
    names = set(schema.names)
    return {
        name: foreign.convert(feature, _Feature, source=path)
        for name, feature in features.items()
        if name in names and isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else pa.null()
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_label(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def rows(path: Path, where: Columns) -> Iterator[Row]:
    """Yield the rows of a file in order. Raises UserError for anything but images with labels."""
    number = 0
    with foreign.open_regular(path, WHAT) as file:
        most = os.fstat(file.fileno()).st_size // SHORTEST_IMAGE
        wanted = [where.image, *([where.label] if where.label else [])]
        for batch in _open(file, wanted)[1]:
            # Arrow takes the offsets in a file as they are; this compares them with its bytes.
            batch.validate(full=True)
            # Lengths are compared before a row is copied, and rows are copied one by one.
            for place, length in enumerate(_lengths(batch.column(where.image))):
                number += 1
                source = f"{path}, row {number}"
                if number > most:
                    raise UserError(f"{shown(path, 300)} has more rows than bytes for images")
                if length > LARGEST_FILE:
                    raise UserError(
                        f"{shown(source, 300)} is too large: at most {LARGEST_FILE:,} bytes"
                    )
                row = batch.select(wanted).slice(place, 1).to_pylist()[0]
                yield Row(_file_in(row[where.image], source), _label(row, where, source), source)


def _open(file: BinaryIO, wanted: list[str] | None = None) -> tuple[pa.Schema, Iterator[Any]]:
    """Return the schema of a file and its batches of rows; the content decides which kind it is."""
    magic = file.read(len(_MAGIC))
    file.seek(0)
    if magic == _MAGIC:
        # With a buffer a group of rows is read page by page, and without one as a whole.
        table = pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)
        read = table.iter_batches(_batch_size(table.metadata), columns=wanted, use_threads=False)
        return table.schema_arrow, read
    if magic == b"ARRO":
        whole = pa.ipc.open_file(file)
        return whole.schema, (whole.get_batch(k) for k in range(whole.num_record_batches))
    stream = pa.ipc.open_stream(file)
    return stream.schema, iter(stream)


def _batch_size(file: pq.FileMetaData) -> int:
    """Return how many rows to decompress at a time: `ROWS`, or fewer where they are large."""
    groups = [file.row_group(k) for k in range(file.num_row_groups)]
    largest = max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=0)
    return min(ROWS, max(LARGEST_BATCH // max(largest, 1), 1))


def _lengths(cells: pa.Array) -> list[int]:
    """Return the bytes of each image file in a column, 0 for none."""
    files = cells.field("bytes") if pa.types.is_struct(cells.type) else cells
    return pc.fill_null(pc.binary_length(files), 0).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]


def _file_in(cell: Any, source: str) -> bytes:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not content:
        raise UserError(f"{shown(source, 300)} holds no image, only a path or nothing")
    return content


def _label(row: Mapping[str, Any], where: Columns, source: str) -> str | int | None:
    if where.label is None:
        return None
    label = row[where.label]
    image_metadata.check_label(label, source)
    known = where.names is None or label in range(len(where.names))
    if label is None or (isinstance(label, int) and label < 0) or not known:
        raise UserError(
            f"{shown(source, 300)} has the label {shown(label)}: prepare the files of labelled "
            "splits alone"
        )
    return label
