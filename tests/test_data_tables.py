"""Parquet and Arrow files of images, as Hugging Face's `datasets` keeps them."""

import io
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ddgan_jax.data import tables
from ddgan_jax.data.prepare.prepare import prepare
from ddgan_jax.errors import UserError

NAMES = ("rose", "tulip", "daisy")
KINDS = ("parquet", "file", "stream")


def png(value, size=8):
    content = io.BytesIO()
    Image.new("RGB", (size, size), (value, 7, 9)).save(content, format="PNG")
    return content.getvalue()


def table(values, labels=None, names=NAMES):
    """A table with the schema that `datasets` 5.2 writes, whose paths lead to this very file."""
    cells = [{"bytes": png(value), "path": __file__} for value in values]
    image = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    features = {"image": {"_type": "Image"}, "tags": [{"_type": "Value", "dtype": "string"}]}
    columns = {"image": image, "tags": pa.array([["x"] for _ in values])}
    if labels is not None:
        columns["label"] = pa.array(labels)
        if names:
            features["label"] = {"names": list(names), "_type": "ClassLabel"}
    metadata = json.dumps({"info": {"features": features}})
    return pa.table(columns).replace_schema_metadata({"huggingface": metadata})


def write(path, content, kind="parquet"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pq.write_table(content, path, row_group_size=3)
    else:
        new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with new(path, content.schema) as writer:
            writer.write_table(content, max_chunksize=3)
    return path


def examples(folder, split="train"):
    """The first channel of each image with the name of its label."""
    builder = tfds.builder_from_directory(folder)
    features = builder.info.features
    label = dict(features.items()).get("label")
    return {
        int(example["image"][0, 0, 0]): label.int2str(example["label"]) if label else None
        for example in builder.as_data_source(split)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_names_of_labels(tmp_path, kind):
    """The content of a file and not its name says of which kind it is."""
    values = list(range(10))
    path = write(tmp_path / "x.parquet", table(values, [v % 3 for v in values]), kind)
    lines = []
    folder = prepare("mine", data_dir=tmp_path, parquet=path, report=lines.append)
    assert examples(folder) == {v: NAMES[v % 3] for v in values}
    assert lines[:2] == ["images: 10 in train", "classes: 3, rose (4), tulip (3), daisy (3)"]


def test_names_of_files_and_folders_say_the_split(tmp_path):
    root = tmp_path / "set"
    write(root / "data" / "train-00000-of-00002.parquet", table([0, 1]))
    write(root / "data" / "train-00001-of-00002.parquet", table([2]))
    write(root / "test" / "0000.parquet", table([3]))
    write(root / ".cache" / "train.parquet", table([4]))
    (root / "README.md").write_text("no table")
    (root / "link.parquet").symlink_to(write(tmp_path / "outside.parquet", table([5])))
    folder = prepare("mine", data_dir=tmp_path, parquet=root)
    assert set(examples(folder)) == {0, 1, 2}
    assert examples(folder, "test") == {3: None}


def test_plain_columns_of_bytes_numbers_and_text(tmp_path):
    content = pa.table({"jpg": [png(0), png(1)], "label": ["b", "a"]})
    folder = prepare("text", data_dir=tmp_path, parquet=write(tmp_path / "a.parquet", content))
    assert examples(folder) == {0: "b", 1: "a"}
    content = pa.table({"jpg": [png(0), png(1)], "label": pa.array([1, 0], pa.int8())})
    folder = prepare("numbers", data_dir=tmp_path, parquet=write(tmp_path / "b.parquet", content))
    assert examples(folder) == {0: "1", 1: "0"}


def images(cells, kind=None):
    return pa.table({"image": pa.array(cells, kind or pa.binary())})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pa.table({"text": ["a"]}), "no single column of image files; it has: text"),
        (pa.table({"a": [b"x"], "b": [b"y"]}), "no single column"),
        # A path in a foreign file is never opened.
        (
            images(
                [{"bytes": None, "path": __file__}],
                pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            ),
            "row 1 holds no image, only a path or nothing",
        ),
        (images([b"broken", png(1), None]), "row 3 holds no image"),
        (images([b"broken", png(1)]), "1 of 2 images cannot be used: .*row 1 .*no PNG"),
        (images([]), "has no rows"),
        (table([0, 1], [0, -1]), "row 2 has the label -1: prepare .* labelled splits"),
        (table([0, 1], [0, 3]), "row 2 has the label 3"),
        (table([0, 1], [0, None]), "row 2 has the label None"),
        (table([0, 1], [0, 2], names=None), "no image has the label 1"),
        (table([0, 1], [0, 1], names=("a", "b\n")), "cannot name a class"),
        (table([0, 1], [0, 1], names=("a", "a")), "two classes with the name 'a'"),
        (table([0, 1], ["a", "b" * 1001], names=None), "row 2 has a label of 1,001 characters"),
        # One image many times, which takes the file a few bytes.
        (
            images([png(0)] * 10**5),
            "more rows than bytes for images",
        ),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(tmp_path, content, message):
    path = tmp_path / "x.parquet"
    pq.write_table(content, path)
    with pytest.raises(UserError, match=message) as caught:
        prepare("mine", data_dir=tmp_path, parquet=path)
    assert "\n" not in str(caught.value) and not (tmp_path / "mine" / "1.0.0").exists()


def test_places_without_tables(tmp_path):
    with pytest.raises(UserError, match=r"no \.parquet or \.arrow file below"):
        prepare("mine", data_dir=tmp_path, parquet=tmp_path)
    with pytest.raises(UserError, match="there is no such file"):
        prepare("mine", data_dir=tmp_path, parquet=tmp_path / "x")
    write(tmp_path / "in" / "a.parquet", table([0], [0]))
    write(tmp_path / "in" / "b.parquet", table([0], [0], names=("x", "y")))
    with pytest.raises(UserError, match="other columns or classes than"):
        prepare("mine", data_dir=tmp_path, parquet=tmp_path / "in")


def _fits(label, where):
    """Whether a label is one of a table with these columns."""
    if where.label is None:
        return label is None
    return label in range(len(where.names)) if where.names else isinstance(label, int | str)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_images_or_one_line(tmp_path, kind):
    content = table(range(20), [v % 3 for v in range(20)])
    good = write(tmp_path / "good", content, kind).read_bytes()
    path = tmp_path / "x"
    for seed in range(60):
        rng = random.Random(seed)
        bad = bytearray(good[: rng.randrange(len(good))] if seed % 4 == 0 else good)
        for _ in range(rng.choice([1, 2, 8]) if bad else 0):
            bad[rng.randrange(len(bad))] = rng.choice([0, 255, rng.randrange(256)])
        path.write_bytes(bad)
        try:
            where = tables.columns(path)
            rows = list(tables.rows(path, where))
            assert all(isinstance(row.content, bytes) for row in rows)
            # A byte in the name of a column, or of its feature, makes a table of another kind.
            assert all(_fits(row.label, where) for row in rows)
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1000


def test_large_files_are_read_in_parts(tmp_path):
    """No more than a few rows are in memory at a time."""
    rng = np.random.default_rng(0)
    cells = [rng.bytes(2**20) for _ in range(64)]
    path = tmp_path / "x.parquet"
    # A page for each image, in one group.
    pq.write_table(images(cells), path, use_dictionary=False, write_batch_size=1)
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    for row, cell in zip(tables.rows(path, tables.columns(path)), cells, strict=True):
        assert row.content == cell
        most = max(most, pool.bytes_allocated() - before)
    assert most < 32 * 2**20
