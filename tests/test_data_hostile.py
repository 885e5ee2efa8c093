"""Archives, arrays, images and prepared sets made by somebody else: a value, or one clear line.

Each generator is seeded. What comes through damaged must be what was packed: every form of packing
has checksums, and they are compared.
"""

import gzip
import io
import json
import os
import pickle
import random
import shutil
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from ddgan_jax.config import base_config
from ddgan_jax.data import array_files, builders, decode, open_dataset, prepared
from ddgan_jax.data.prepare import archives
from ddgan_jax.data.prepare.prepare import prepare
from ddgan_jax.errors import UserError
from tests.test_data_prepare import (
    CIFAR,
    MNIST,
    binary_batch,
    cifar_archive,
    mnist_files,
    pickled,
)

RNG = np.random.default_rng(1)


def value_or_line(function):
    """The value, or None where the function says in one line why there is none."""
    try:
        return function()
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return None


def damaged(rng, whole):
    content = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        kind, start = rng.randrange(4), rng.randrange(len(content))
        if kind < 2:
            content[start] ^= 1 << rng.randrange(8)
        elif kind == 2:
            content[start : start + rng.randint(1, 30)] = rng.randbytes(rng.randint(0, 30))
        elif rng.random() < 0.3:
            del content[start:]
        content = content or bytearray(1)
    return bytes(content)


def equal(found, expected):
    return all(
        np.array_equal(a, b)
        for split in expected
        for a, b in zip(found[split], expected[split], strict=True)
    )


# ------------------------------------------------------------------------------------ archives


def bz2_archive(path):
    with tarfile.open(path, "w:bz2") as out, tarfile.open(cifar_archive(path)) as whole:
        for member in whole:
            out.addfile(member, whole.extractfile(member))
    return path


def zip_archive(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in mnist_files().items():
            pack.writestr(f"{name}.gz", gzip.compress(content))
    return path


@pytest.mark.parametrize(
    ("name", "pack", "expected"),
    [
        ("cifar10", cifar_archive, CIFAR),
        ("cifar10", lambda path: cifar_archive(path, binary_batch, ".bin"), CIFAR),
        ("mnist", zip_archive, MNIST),
    ],
    ids=["python", "binary", "zip"],
)
@pytest.mark.parametrize("seed", range(2))
def test_damaged_archives_are_noticed(tmp_path, name, pack, expected, seed):
    rng, path = random.Random(seed), tmp_path / "archive"
    whole = pack(path).read_bytes()
    for _ in range(60):
        path.write_bytes(damaged(rng, whole))
        found = value_or_line(lambda: archives.read(name, path, allow_unpublished=True))
        assert found is None or equal(found, expected)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_unpublished_files_need_a_word(tmp_path, name, capsys):
    pack = cifar_archive if name == "cifar10" else zip_archive
    archive, data_dir = pack(tmp_path / "archive"), tmp_path / "tfds"
    with pytest.raises(UserError, match="checksum.*give `allow_unpublished`"):
        prepare(name, data_dir=data_dir, archive=archive)
    assert not data_dir.exists()
    prepare(name, data_dir=data_dir, archive=archive, allow_unpublished=True)
    assert "used all the same, as `allow_unpublished` says\n" in capsys.readouterr().err


def test_published_files_must_have_their_numbers(tmp_path, monkeypatch):
    archive = cifar_archive(tmp_path / "archive")
    monkeypatch.setattr(archives, "_CIFAR_SHA256", (archives.sha256(archive),))
    with pytest.raises(UserError, match="train has 15 images, not 50,000"):
        archives.read("cifar10", archive)


def member(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "extra",
    [
        [member("data_batch_1", tarfile.SYMTYPE, "/etc/passwd")],
        [member("data_batch_1", tarfile.LNKTYPE, "data_batch_2")],
        [member("data_batch_1", tarfile.CHRTYPE)],
        [member("data_batch_1", tarfile.FIFOTYPE)],
        [member("data_batch_1", tarfile.DIRTYPE)],
    ],
)
def test_members_that_are_no_files_are_not_read(tmp_path, extra):
    with tarfile.open(cifar_archive(tmp_path / "whole")) as whole:
        files = {m.name: whole.extractfile(m).read() for m in whole if "batch_1" not in m.name}
    with tarfile.open(tmp_path / "archive", "w:gz") as out:
        for info in extra:
            out.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    with pytest.raises(UserError, match="no data_batch_1 in it"):
        archives.read("cifar10", tmp_path / "archive", allow_unpublished=True)


def repeated(name):
    def write(path):
        with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as out:
            for k in range(archives.MOST_MEMBERS + 1 if name is None else 2):
                out.addfile(tarfile.TarInfo(name or f"file{k}"))

    return write


def unfolding_tar(path):
    """The end of a tar of nothing, and then a gigabyte of zeros."""
    with gzip.open(path, "wb", 1) as out:
        for _ in range(2**10):
            out.write(bytes(2**20))


def unfolding_member(path):
    with tarfile.open(path, "w:gz", compresslevel=1) as out:
        info = tarfile.TarInfo("test_batch")
        info.size = archives.LARGEST_MEMBER + 10
        out.addfile(info, io.BytesIO(bytes(info.size)))


def unfolding_gz(path):
    path.mkdir()
    with gzip.open(path / "train-images-idx3-ubyte.gz", "wb", 1) as out:
        for _ in range(2**7):
            out.write(bytes(2**20))


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (unfolding_tar, "cifar10", "unfolds to far more|no data_batch_1"),
        (unfolding_member, "cifar10", "more than 67,108,864 bytes"),
        (unfolding_gz, "mnist", "more than 67,108,864 bytes"),
        (repeated(None), "cifar10", "more than 1,000 files"),
        (repeated("test_batch"), "cifar10", "holds test_batch twice"),
    ],
)
def test_archives_that_unfold_are_bounded(tmp_path, write, name, message):
    write(tmp_path / "archive")
    with pytest.raises(UserError, match=message):
        archives.read(name, tmp_path / "archive", allow_unpublished=True)


@pytest.mark.parametrize(
    "labels",
    [[0.0, 1.0, 2.0], [True, False, True], [0, 1, 10], [0, 1, -1], [0, 1, 10**30], "abc", None],
)
def test_labels_are_integers_below_ten(tmp_path, labels):
    batch = pickled({b"data": np.zeros((3, 3072), np.uint8), b"labels": labels}, pickle._Pickler)
    archive = cifar_archive(tmp_path / "archive", data_batch_2=batch)
    with pytest.raises(UserError, match="labels"):
        archives.read("cifar10", archive, allow_unpublished=True)


# -------------------------------------------------------------------------------- arrays, images


def test_two_arrays_of_one_name_are_refused(tmp_path):
    """Either would be the right one to somebody."""
    content = io.BytesIO()
    np.save(content, np.zeros((2, 4, 4, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", content.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", content.getvalue())
    with pytest.raises(UserError, match="two arrays of one name"):
        array_files.open_images(tmp_path / "x.npz")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_arrays_are_noticed(tmp_path, save, seed):
    rng, path = random.Random(seed), tmp_path / "x.npz"
    pixels, labels = RNG.integers(0, 256, (4, 8, 8, 3), np.uint8), np.arange(4)
    save(path, images=pixels, labels=labels)
    whole = path.read_bytes()
    for _ in range(100):
        path.write_bytes(damaged(rng, whole))
        found = value_or_line(lambda: array_files.open_images(path))
        if found is not None and found.labels is not None and "images" in found.name:
            assert np.array_equal(found.pixels, pixels) and np.array_equal(found.labels, labels)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_damaged_images_are_images_or_one_line(form):
    rng = random.Random(form)
    out = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (9, 7, 3), np.uint8)).save(out, format=form)
    for _ in range(100):
        content = damaged(rng, out.getvalue())
        found = value_or_line(lambda content=content: decode.decode(content, 3))
        assert found is None or (found.dtype == np.uint8 and found.shape[-1] == 3)


# --------------------------------------------------------------------------------- prepared sets


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A prepared set of labelled images, written once."""
    folder = tmp_path_factory.mktemp("made")
    pixels = RNG.integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.savez(folder / "x.npz", images=pixels, labels=np.arange(6) % 3)
    prepare("mine", data_dir=folder, arrays=folder / "x.npz")
    return folder


@pytest.fixture
def data_dir(made, tmp_path):
    shutil.copytree(made / "mine", tmp_path / "mine")
    return tmp_path


def config(data_dir):
    c = base_config()
    c.data.update({"dir": str(data_dir), "name": "mine", "image_size": 8, "channels": 3})
    return c


def opened(data_dir):
    dataset = open_dataset(config(data_dir))
    return dataset.read(np.arange(dataset.info.num_examples))


def change(data_dir, file, function):
    path = data_dir / "mine" / "1.0.0" / file
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def feature(content, name="image"):
    return content["featuresDict"]["features"][name]


IMAGE = "tensorflow_datasets.core.features.image_feature.Image"


@pytest.mark.parametrize(
    "function",
    [
        lambda c: feature(c).update(pythonClassName="evil_module.Image"),
        lambda c: feature(c).update(python_class_name="evil_module.Image"),
        lambda c: feature(c).pop("pythonClassName"),
        lambda c: c.update(pythonClassName="evil_module.FeaturesDict"),
        lambda c: c.update(type="evil_module.FeaturesDict", content={}),
        lambda c: feature(c).update(jsonFeature={"json": '{"names_file": "/etc/passwd"}'}),
        lambda c: feature(c, "label").update(
            pythonClassName="tensorflow_datasets.core.features.video_feature.Video"
        ),
        lambda c: c["featuresDict"]["features"].update({"../x": feature(c, "label")}),
        lambda c: c["featuresDict"]["features"].update({"/etc/x": feature(c, "label")}),
        lambda c: c["featuresDict"].update(features=[1]),
        lambda c: c.clear(),
    ],
)
def test_no_module_that_a_prepared_set_names_is_imported(data_dir, monkeypatch, function):
    (data_dir / "evil_module.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(data_dir))
    change(data_dir, prepared.FEATURES, function)
    with pytest.raises(UserError, match="mine"):
        opened(data_dir)
    assert "evil_module" not in sys.modules


def split(content):
    return content["splits"][0]


@pytest.mark.parametrize(
    "function",
    [
        lambda c: split(c).update(filepathTemplate="../{DATASET}-{SPLIT}.{FILEFORMAT}"),
        lambda c: split(c).update(filepathTemplate="{SPLIT:>999999999}"),
        lambda c: split(c).update(filepathTemplate="{SPLIT.__class__}"),
        lambda c: split(c).update(name="../../x"),
        lambda c: split(c).update(shardLengths=["7"]),
        lambda c: split(c).update(shardLengths=["5"]),
        lambda c: split(c).update(shardLengths=["6", "6"]),
        lambda c: split(c).update(shardLengths=["-6"]),
        lambda c: split(c).update(shardLengths=["9" * 15]),
        lambda c: split(c).update(shardLengths=["9" * 30]),
        lambda c: split(c).update(shardLengths=["1"] * 100_001),
        lambda c: split(c).update(shardLengths=[1.5]),
        lambda c: c.update(name="../x"),
        lambda c: c.update(fileFormat="../x"),
        lambda c: c.update(version="x"),
        lambda c: c.update(splits=1),
        lambda c: c.update(unknownField=1),
    ],
)
def test_numbers_and_names_of_a_prepared_set_are_checked(data_dir, function):
    change(data_dir, prepared.INFO, function)
    with pytest.raises(UserError):
        opened(data_dir)


@pytest.mark.parametrize("name", ["label.labels.txt", "x.json", "mine-train.array_record"])
def test_a_prepared_set_holds_no_pipes(data_dir, name):
    os.mkfifo(data_dir / "mine" / "1.0.0" / name)
    with pytest.raises(UserError, match="is no regular file"):
        opened(data_dir)


@pytest.mark.parametrize("cut", [0, 1000, 66_000, 100_000, None])
def test_records_that_are_not_whole(data_dir, cut):
    (records,) = (data_dir / "mine" / "1.0.0").glob("*array_record*")
    content = records.read_bytes()
    if cut is None:
        records.unlink()
    else:
        records.write_bytes(content[:cut])
    with pytest.raises(UserError, match="mine"):
        opened(data_dir)


def test_labels_beyond_the_classes(tmp_path):
    """TFDS lets -1 stand for no label; as an index into classes it would be the last one."""
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    examples = builders.array_examples(pixels, np.array([0, -1]))
    builders.write(builders.ImageSet("mine", "", (8, 8, 3), 2, {"train": examples}, tmp_path))
    with pytest.raises(UserError, match="has the label -1, and the set has 2 classes"):
        opened(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_sets_give_their_images_or_one_line(made, tmp_path, seed):
    rng = random.Random(seed)
    pixels, labels = opened(made)
    for k in range(25):
        data_dir = tmp_path / str(k)
        shutil.copytree(made / "mine", data_dir / "mine")
        path = rng.choice(sorted((data_dir / "mine" / "1.0.0").iterdir()))
        path.write_bytes(damaged(rng, path.read_bytes()))
        found = value_or_line(lambda data_dir=data_dir: opened(data_dir))
        if found is not None and len(found[0]) == len(pixels):
            np.testing.assert_array_equal(found[0], pixels)
            if path.name != prepared.FEATURES:
                np.testing.assert_array_equal(found[1], labels)
        shutil.rmtree(data_dir)
