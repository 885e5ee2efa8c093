"""Finding and opening sets: TFDS, digits, folders, stacked MNIST, and what users get wrong."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ddgan_jax.config import base_config
from ddgan_jax.data import builders, fingerprint, open_dataset
from ddgan_jax.data.datasets import ArrayDataset, RecordDataset
from ddgan_jax.data.prepare.prepare import prepare
from ddgan_jax.errors import UserError


@pytest.fixture(autouse=True)
def no_litter(tmp_path_factory, monkeypatch):
    """Nothing is left in the system's folder of temporary files, as TFDS by itself would do."""
    litter = tmp_path_factory.mktemp("litter")
    monkeypatch.setattr(tempfile, "tempdir", str(litter))
    yield
    assert not list(litter.iterdir())


def config(data_dir, name, size=8, channels=3, **fields):
    c = base_config()
    c.data.update({"dir": str(data_dir), "name": name, "image_size": size, "channels": channels})
    c.data.update(fields)
    return c


def read_all(dataset):
    return dataset.read(np.arange(dataset.info.num_examples))


@pytest.fixture
def picture_folder(tmp_path):
    """Two classes of 8x8 PNG files, and things that are no images of the set."""
    root = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name / "deeper").mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / ("deeper" if i else "") / f"{i}.png")
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image")
    return root


@pytest.fixture(scope="module")
def mnist_dir(tmp_path_factory):
    """A small MNIST: image i is full of the value i, its digit i % 10."""
    folder = tmp_path_factory.mktemp("mnist")
    pixels = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None], (30, 28, 28))
    np.savez(folder / "mnist.npz", images=pixels, labels=np.arange(30) % 10)
    prepare("mnist", data_dir=folder, arrays=folder / "mnist.npz")
    return folder


def test_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    dataset = open_dataset(config(tmp_path, "digits", channels=1))
    assert dataset.info.num_examples == 1797
    assert dataset.info.num_classes == 10
    pixels, labels = read_all(dataset)

    def sorted_rows(images, classes):
        rows = np.column_stack([classes, images.reshape(len(images), -1)])
        return rows[np.lexsort(rows.T)]

    digits = load_digits()
    expected = sorted_rows(np.round(digits.images * 255 / 16), digits.target)
    np.testing.assert_array_equal(sorted_rows(pixels, labels), expected)
    # Runs that began when scikit-learn handed the digits over resume on this digest.
    assert dataset.info.digest == builders.arrays_digest(
        np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None], digits.target
    )
    assert dataset.info.digest.startswith("bbe74ba6220adbe5")


def test_folder(tmp_path, picture_folder):
    dataset = open_dataset(config(tmp_path, "folder", path=str(picture_folder)))
    pixels, labels = read_all(dataset)
    assert dataset.info.num_classes == 2
    files = sorted(picture_folder.rglob("?.png"))
    found = {(image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)}
    wanted = {(np.asarray(Image.open(f)).tobytes(), int("dog" in f.parts)) for f in files}
    assert found == wanted
    assert len(pixels) == len(files) == 6


def test_folder_without_classes(tmp_path, picture_folder):
    for name in ("cat", "dog"):
        for file in sorted((picture_folder / name).rglob("?.png")):
            os.rename(file, picture_folder / f"{name}{file.name}")
    dataset = open_dataset(config(tmp_path, "folder", path=str(picture_folder)))
    assert dataset.info.num_classes == 0
    np.testing.assert_array_equal(read_all(dataset)[1], np.zeros(6))


def test_changed_folder_is_read_anew(tmp_path, picture_folder):
    fields = config(tmp_path, "folder", path=str(picture_folder))
    open_dataset(fields)
    white = picture_folder / "cat" / "0.png"
    Image.new("RGB", (8, 8), (255, 255, 255)).save(white)
    os.utime(white, ns=(1, 1))
    assert (read_all(open_dataset(fields))[0] == 255).all(axis=(1, 2, 3)).sum() == 1


def test_the_fingerprint_follows_the_content_of_a_folder(tmp_path, picture_folder):
    """Not its place, its times of change, or the form that holds the set."""

    def of(folder, **fields):
        return fingerprint(open_dataset(config(tmp_path, "folder", path=str(folder), **fields)))

    first = of(picture_folder)
    assert of(picture_folder, memory_limit_mib=0) == first
    white = picture_folder / "cat" / "0.png"
    os.utime(white, ns=(1, 1))
    assert of(picture_folder) == first
    moved = picture_folder.rename(tmp_path / "moved")
    assert of(moved) == first
    os.rename(moved / "cat" / "0.png", moved / "dog" / "x.png")  # another label
    relabelled = of(moved)
    Image.new("RGB", (8, 8), (255, 255, 255)).save(moved / "dog" / "x.png")
    assert len({first, relabelled, of(moved)}) == 3


def test_the_fingerprint_sees_one_image_of_many(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 2, 2, 1), dtype=np.uint8)
    found = set()
    for k in range(3):
        np.savez(tmp_path / "x.npz", images=pixels)
        prepare(f"set{k}", data_dir=tmp_path, arrays=tmp_path / "x.npz")
        dataset = open_dataset(config(tmp_path, f"set{k}", size=2, channels=1))
        info = dataclasses.replace(dataset.info, name="same")
        found.add(fingerprint(dataclasses.replace(dataset, info=info)))
        pixels[501] += k == 0  # the third set is the second one
    assert len(found) == 2


def test_memory_limit_decides_and_changes_nothing(tmp_path, picture_folder):
    """The 6 images of 8x8x3 take 1,152 bytes; the limit is a number of MiB."""
    sizes = {"fits": 1, "does not fit": 0}
    datasets = {
        k: open_dataset(config(tmp_path, "folder", path=str(picture_folder), memory_limit_mib=v))
        for k, v in sizes.items()
    }
    assert isinstance(datasets["fits"], ArrayDataset)
    assert isinstance(datasets["does not fit"], RecordDataset)
    ids = np.array([5, 0, 0, 3])
    for a, b in zip(*(dataset.read(ids) for dataset in datasets.values()), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_split_and_max_examples(tmp_path):
    def read(**fields):
        return read_all(open_dataset(config(tmp_path, "digits", channels=1, **fields)))[0]

    everything = read()
    np.testing.assert_array_equal(read(split="train[10:20]"), everything[10:20])
    np.testing.assert_array_equal(read(max_examples=7), everything[:7])
    np.testing.assert_array_equal(read(split="train[5:]", max_examples=7), everything[5:12])


def test_stacked_mnist(mnist_dir):
    dataset = open_dataset(config(mnist_dir, "stacked_mnist", size=32))
    pixels, labels = read_all(dataset)
    assert dataset.info.num_classes == 1000
    assert pixels.shape == (60, 32, 32, 3)
    assert labels.dtype == np.int32
    border = np.ones((32, 32), bool)
    border[2:30, 2:30] = False
    assert not pixels[:, border].any()
    members = pixels[:, 2, 2]
    np.testing.assert_array_equal(
        pixels[:, 2:30, 2:30], members[:, None, None] * np.ones((28, 28, 1))
    )
    np.testing.assert_array_equal(labels, members % 10 @ [100, 10, 1])
    for channel in members.T:
        for half in np.split(channel, 2):
            np.testing.assert_array_equal(np.sort(half), np.arange(30))
    assert len({tuple(half) for channel in members.T for half in np.split(channel, 2)}) == 6


def test_stacked_mnist_is_the_same_set_in_every_run(mnist_dir):
    one, other = config(mnist_dir, "stacked_mnist", 32), config(mnist_dir, "stacked_mnist", 32)
    other.train.seed = 5
    for a, b in zip(read_all(open_dataset(one)), read_all(open_dataset(other)), strict=True):
        np.testing.assert_array_equal(a, b)
    # Runs that have begun resume on it.
    assert fingerprint(open_dataset(one)) == "fc29c839efaecf28"


@pytest.mark.parametrize("memory_limit_mib", [0, 100])
@pytest.mark.parametrize(
    ("name", "size", "channels", "classes"),
    [
        ("cifar10", 32, 3, 10),
        ("cifar10", 32, 1, 10),
        ("celeb_a_hq/256", 256, 3, 0),
        ("imagenet_resized/64x64", 64, 3, 1000),
        ("stl10", 64, 3, 10),
    ],
)
def test_tfds_sets_by_name(tmp_path, name, size, channels, classes, memory_limit_mib):
    with tfds.testing.mock_data(num_examples=3):
        fields = config(tmp_path, name, size, channels, memory_limit_mib=memory_limit_mib)
        dataset = open_dataset(fields)
        pixels, labels = dataset.read(np.array([2, 0]))
    assert dataset.info.num_classes == classes
    assert pixels.shape == (2, size, size, channels)
    assert pixels.std() > 10
    assert (labels.max() < classes) if classes else not labels.any()


BAD = [  # fields, what the message says; {tmp}: the test's folder
    ({"name": ""}, "data.name is empty"),
    ({"name": "cifra10"}, "nearest names: cifar10"),
    ({"name": "digit"}, "nearest names: digits"),
    ({"name": "lsun/chruch_outdoor"}, "nearest names: lsun/church_outdoor"),
    ({"name": "cifar10:1.0.0"}, "no data set 'cifar10:1.0.0'"),
    ({"name": "../x"}, "no data set '../x'"),
    (
        {"name": "cifar10"},
        "not prepared in {tmp}/cifar10/3.0.2: "
        "run `ddgan prepare --dataset=cifar10 --data-dir={tmp} --download`",
    ),
    ({"name": "stacked_mnist", "image_size": 32}, "--dataset=mnist"),
    ({"name": "stacked_mnist", "image_size": 28}, "data.image_size=32"),
    ({"name": "celeb_a_hq/256"}, 'pip install "ddgan-jax[tf]"'),
    ({"name": "race"}, "race has no single 8-bit image feature; it has: article (Text)"),
    ({"name": "folder"}, "needs data.path"),
    (
        {"name": "folder", "path": "{tmp}/nowhere"},
        "cannot read {tmp}/nowhere: there is no such file",
    ),
    (
        {"name": "folder", "path": "{tmp}/empty"},
        "no image (PNG, JPEG, WebP, BMP, GIF) below {tmp}/empty",
    ),
    ({"name": "folder", "path": "{tmp}/broken"}, "cannot be used: cannot read {tmp}/broken/x.png"),
    ({"name": "folder", "path": "{tmp}/pictures", "image_size": 9}, "6 of 6 images of folder are"),
    ({"name": "folder", "path": "{tmp}/pictures", "split": "trian"}, "which has train (6)"),
    ({"name": "folder", "path": "{tmp}/pictures", "split": "train[3:3]"}, "selects nothing"),
    ({"name": "digits", "dir": "s3://bucket/sets"}, "copy or mount s3://bucket/sets"),
    ({"name": "digits", "dir": "{tmp}/file/x"}, "cannot write the set digits to {tmp}/file/x"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_what_a_user_can_mend_is_said_in_one_line(tmp_path, picture_folder, fields, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    whole = (picture_folder / "cat" / "0.png").read_bytes()
    (tmp_path / "broken" / "x.png").write_bytes(whole[:100])
    (tmp_path / "file").write_text("")
    fields = {
        key: value.format(tmp=tmp_path) if isinstance(value, str) else value
        for key, value in fields.items()
    }
    name, size = fields.pop("name"), fields.pop("image_size", 8)
    with pytest.raises(UserError) as caught:
        open_dataset(config(fields.pop("dir", tmp_path), name, size, **fields))
    assert message.format(tmp=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_set_prepared_for_tensorflow_is_refused(tmp_path):
    fields = config(tmp_path, "digits", channels=1)
    open_dataset(fields)
    info = tmp_path / "digits" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="prepared as tfrecord"):
        open_dataset(fields)


def test_damaged_record_is_noticed(tmp_path):
    fields = config(tmp_path, "digits", channels=1)
    open_dataset(fields)
    (file,) = (tmp_path / "digits" / "1.0.0").glob("*array_record*")
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="digits in .* is damaged, or no set of images"):
        open_dataset(fields)


def test_of_two_builds_at_once_one_wins(tmp_path):
    """The second starts and ends while the first is writing."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)

    def write(examples):
        splits = {"train": examples}
        return builders.write(builders.ImageSet("overtaken", "", (8, 8, 1), None, splits, tmp_path))

    def overtaken():
        write(builders.array_examples(pixels, None))
        yield from builders.array_examples(pixels, None)

    folder = write(overtaken())
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]
    found = read_all(open_dataset(config(tmp_path, "overtaken", channels=1)))[0]
    assert {image.tobytes() for image in found} == {image.tobytes() for image in pixels}


def test_killed_build_leaves_nothing_that_counts(tmp_path):
    """Killed while writing; the next build starts anew and is complete."""
    script = f"""
import os, pathlib
from ddgan_jax.data import builders
whole = builders.array_examples
def dies(pixels, labels):
    for i, example in whole(pixels, labels):
        if i == 1000:
            os.kill(os.getpid(), 9)
        yield i, example
builders.array_examples = dies
builders.write_digits(pathlib.Path({str(tmp_path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert any((tmp_path / "digits").iterdir())
    assert len(read_all(open_dataset(config(tmp_path, "digits", channels=1)))[0]) == 1797


def test_neither_tensorflow_nor_needless_imports(tmp_path):
    script = f"""
import sys
import ddgan_jax.data
assert not {{"tensorflow_datasets", "grain", "PIL"}} & set(sys.modules)
from ddgan_jax.config import base_config
config = base_config()
config.data.update({{"name": "digits", "dir": {str(tmp_path)!r}, "image_size": 8, "channels": 1}})
dataset = ddgan_jax.data.open_dataset(config)
next(ddgan_jax.data.batches(dataset, batch_size=4, seed=0, start_step=0))
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
