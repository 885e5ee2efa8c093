"""Preparing sets: what TFDS reads is what the archive held, and nothing in it is run."""

import gzip
import hashlib
import io
import pickle
import shlex
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ddgan_jax import cli
from ddgan_jax.cli.arguments import parse_config
from ddgan_jax.data import catalog, open_dataset, published
from ddgan_jax.data.prepare import archives
from ddgan_jax.data.prepare.prepare import prepare
from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.files import locks

RNG = np.random.default_rng(0)
EIGHT = np.zeros((2, 8, 8), np.uint8)
CIFAR = {
    split: (RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 10, count))
    for split, count in {"train": 15, "test": 4}.items()
}
MNIST = {
    split: (RNG.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8), RNG.integers(0, 10, count))
    for split, count in {"train": 9, "test": 4}.items()
}


@pytest.fixture(autouse=True)
def no_litter(tmp_path_factory, monkeypatch):
    """Nothing is left in the system's folder of temporary files, as TFDS by itself would do."""
    litter = tmp_path_factory.mktemp("litter")
    monkeypatch.setattr(tempfile, "tempdir", str(litter))
    yield
    assert not list(litter.iterdir())


class Python2Pickler(pickle._Pickler):
    """Writes every string as Python 2 did, which is how CIFAR-10 is published."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def pickled(value, pickler=Python2Pickler):
    buffer = io.BytesIO()
    pickler(buffer, protocol=2).dump(value)
    content = buffer.getvalue()
    if pickler is Python2Pickler:
        return content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    return content


def cifar_rows(pixels):
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)


def python_batch(pixels, labels, pickler):
    batch = {b"batch_label": b"x", b"labels": labels.tolist(), b"data": cifar_rows(pixels)}
    return pickled(batch, pickler)


def binary_batch(pixels, labels, _):
    return np.column_stack([labels.astype(np.uint8), cifar_rows(pixels)]).tobytes()


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def cifar_archive(path, batch=python_batch, suffix="", pickler=Python2Pickler, **changed):
    pixels, labels = CIFAR["train"]
    files = {
        f"cifar/data_batch_{k + 1}{suffix}": batch(
            pixels[3 * k : 3 * k + 3], labels[3 * k : 3 * k + 3], pickler
        )
        for k in range(5)
    }
    files[f"cifar/test_batch{suffix}"] = batch(*CIFAR["test"], pickler)
    return write_tar(path, files | {f"cifar/{k}": v for k, v in changed.items()})


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def mnist_files():
    return {
        f"{prefix}-{kind}-ubyte": idx(array)
        for split, prefix in (("train", "train"), ("test", "t10k"))
        for kind, array in (
            ("images-idx3", MNIST[split][0][..., 0]),
            ("labels-idx1", MNIST[split][1]),
        )
    }


def assert_set_holds(name, data_dir, splits):
    """The stock TFDS reader finds exactly these examples."""
    for split, (pixels, labels) in splits.items():
        source = tfds.data_source(name, data_dir=data_dir, split=split, download=False)
        found = {(example["image"].tobytes(), int(example["label"])) for example in source}
        assert found == {(x.tobytes(), int(y)) for x, y in zip(pixels, labels, strict=True)}
        assert len(source) == len(labels)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"pickler": pickle._Pickler},  # as rewritten with Python 3
        {"batch": binary_batch, "suffix": ".bin"},
    ],
    ids=["python 2", "python 3", "binary"],
)
def test_cifar10_archive_becomes_the_stock_set(tmp_path, form):
    archive = cifar_archive(tmp_path / "a.tgz", **form)
    folder = prepare("cifar10", data_dir=tmp_path, archive=archive, allow_unpublished=True)
    assert folder == tmp_path / "cifar10" / "3.0.2"
    assert_set_holds("cifar10", tmp_path, CIFAR)
    source = tfds.data_source("cifar10", data_dir=tmp_path, split="test", download=False)
    for example in source:
        number = int(example["id"].decode().removeprefix("test_"))
        np.testing.assert_array_equal(example["image"], CIFAR["test"][0][number])
    assert source.dataset_info.features["label"].int2str(3) == "cat"


def mnist_folder(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.gz").write_bytes(gzip.compress(content))
    return path


def mnist_zip(path, files):
    with zipfile.ZipFile(path, "w") as pack:
        for name, content in files.items():
            pack.writestr(f"MNIST/raw/{name}", content)
    return path


def mnist_tar(path, files):
    return write_tar(
        path, {f"x/{name}.gz": gzip.compress(content) for name, content in files.items()}
    )


@pytest.mark.parametrize("pack", [mnist_folder, mnist_zip, mnist_tar])
def test_mnist_files_become_the_stock_set(tmp_path, pack):
    archive = pack(tmp_path / "mnist", mnist_files())
    prepare("mnist", data_dir=tmp_path / "tfds", archive=archive, allow_unpublished=True)
    assert_set_holds("mnist", tmp_path / "tfds", MNIST)


class Evil:
    """Unpickles by calling a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        lambda mark: Evil(open, mark, "w"),
        lambda mark: Evil(eval, f"open({mark!r}, 'w')"),
        lambda mark: Evil(np.save, mark, 0),
        lambda mark: Evil(__import__("codecs").encode, "text", "punycode"),
    ],
    ids=["open", "eval", "numpy", "codec"],
)
def test_nothing_in_an_archive_is_run(tmp_path, evil):
    mark = tmp_path / "was_here.npy"
    content = pickled(evil(str(mark)), pickle._Pickler)
    archive = cifar_archive(tmp_path / "a.tgz", data_batch_3=content)
    with pytest.raises(UserError, match="which no image needs|text is encoded as punycode"):
        prepare("cifar10", data_dir=tmp_path / "tfds", archive=archive, allow_unpublished=True)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
@pytest.mark.parametrize("damage", ["missing", "junk", "cut", "other", "empty folder"])
def test_damaged_archive_is_named(tmp_path, name, damage):
    archive = tmp_path / "archive"
    if damage == "junk":
        archive.write_bytes(b"junk")
    elif damage == "cut":
        whole = cifar_archive if name == "cifar10" else lambda path: mnist_tar(path, mnist_files())
        archive.write_bytes(whole(tmp_path / "whole").read_bytes()[:-2000])
    elif damage == "other":
        write_tar(archive, {"readme.txt": b"hello"})
    elif damage == "empty folder":
        archive.mkdir()
    message = f"cannot read {archive}|{archive} is damaged, or no archive"
    with pytest.raises(UserError, match=message):
        prepare(name, data_dir=tmp_path / "tfds", archive=archive, allow_unpublished=True)
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"data_batch_2": pickled({b"data": np.zeros((3, 3072)), b"labels": [0, 1, 2]})},
        {"data_batch_2": pickled({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1]})},
        {"data_batch_2": pickled({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 10]})},
        {"data_batch_2": pickled({b"data": np.zeros((3, 3000), np.uint8), b"labels": [0, 1, 2]})},
        {"data_batch_2": pickled([1, 2])},
        {"data_batch_2": b""},
    ],
)
def test_batches_that_are_no_cifar10_are_refused(tmp_path, changed):
    archive = cifar_archive(tmp_path / "a.tgz", **changed)
    with pytest.raises(UserError, match="is damaged, or no archive of cifar10"):
        prepare("cifar10", data_dir=tmp_path / "tfds", archive=archive, allow_unpublished=True)


@pytest.mark.parametrize("channels", [0, 1, 3])
@pytest.mark.parametrize("labelled", [True, False])
def test_arrays(tmp_path, channels, labelled):
    shape = (6, 8, 8, channels) if channels else (6, 8, 8)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "a.npz", images=pixels, **({"labels": labels} if labelled else {}))
    folder = prepare("mine", data_dir=tmp_path, arrays=tmp_path / "a.npz")
    source = tfds.builder_from_directory(folder).as_data_source("train")
    assert ("label" in source[0]) == labelled
    found = {(example["image"].tobytes(), example.get("label")) for example in source}
    expected = labels if labelled else [None] * 6
    assert found == {(x.tobytes(), y) for x, y in zip(pixels, expected, strict=True)}


def test_cifar10_and_mnist_from_arrays_are_the_stock_sets(tmp_path):
    for name, splits in {"cifar10": CIFAR, "mnist": MNIST}.items():
        pixels, labels = splits["train"]
        np.savez(tmp_path / "a.npz", images=pixels, labels=labels)
        prepare(name, data_dir=tmp_path, arrays=tmp_path / "a.npz")
        assert_set_holds(name, tmp_path, {"train": splits["train"]})


def test_images(tmp_path):
    (tmp_path / "in" / "red").mkdir(parents=True)
    Image.new("RGB", (9, 7), (255, 0, 0)).save(tmp_path / "in" / "red" / "x.png")
    folder = prepare("mine", data_dir=tmp_path, images=tmp_path / "in")
    (example,) = tfds.builder_from_directory(folder).as_data_source("train")
    np.testing.assert_array_equal(example["image"], np.full((7, 9, 3), (255, 0, 0)))
    assert example["image/filename"] == b"red/x.png"


def publish(monkeypatch, folder, names):
    """Publishes files of a folder as MNIST."""
    remotes = [
        published.Remote(
            f"{folder.as_uri()}/",
            name,
            hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            hashlib.sha256(gzip.decompress((folder / name).read_bytes())).hexdigest(),
        )
        for name in names
    ]
    monkeypatch.setattr(published, "PUBLISHED", {"mnist": tuple(remotes)})
    monkeypatch.setattr(archives, "PUBLISHED", {"mnist": tuple(remotes)})
    counts = {split: len(labels) for split, (_, labels) in MNIST.items()}
    monkeypatch.setattr(archives, "COUNTS", {"mnist": counts})


def test_download_is_checked_and_kept(tmp_path, monkeypatch):
    remote = mnist_folder(tmp_path / "remote", mnist_files())
    names = [entry.name for entry in published.PUBLISHED["mnist"]]
    publish(monkeypatch, remote, names)
    prepare("mnist", data_dir=tmp_path, download=True)
    assert_set_holds("mnist", tmp_path, MNIST)
    for name in names:  # what is there is not fetched again
        assert (tmp_path / "downloads" / name).read_bytes() == (remote / name).read_bytes()
        (remote / name).unlink()
    assert published.fetch("mnist", tmp_path / "downloads") == tmp_path / "downloads"

    (tmp_path / "downloads" / names[2]).write_bytes(b"other")
    with pytest.raises(UserError, match=f"{names[2]} is not the published file"):
        published.fetch("mnist", tmp_path / "downloads")
    (tmp_path / "downloads" / names[2]).unlink()
    with pytest.raises(UserError, match="cannot fetch"):
        published.fetch("mnist", tmp_path / "downloads")
    (remote / names[2]).write_bytes(b"other")
    with pytest.raises(UserError, match="not the published one"):
        published.fetch("mnist", tmp_path / "downloads")
    kept = {path.name for path in (tmp_path / "downloads").iterdir() if path.is_file()}
    assert kept == {*names} - {names[2]}


def test_what_is_there_is_never_overwritten(tmp_path):
    archive = mnist_folder(tmp_path / "mnist_files", mnist_files())
    folder = prepare("mnist", data_dir=tmp_path, archive=archive, allow_unpublished=True)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    np.savez(tmp_path / "a.npz", images=MNIST["test"][0], labels=MNIST["test"][1])
    for source in ({"archive": archive}, {"arrays": tmp_path / "a.npz"}, {"download": True}):
        with pytest.raises(UserError, match=f"already prepared in {folder}"):
            prepare("mnist", data_dir=tmp_path, **source)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_set_that_another_process_prepares_is_busy(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", images=EIGHT)
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with locks.only_writer(tmp_path / "tfds" / "mine"), pytest.raises(BusyError, match="mine"):
        prepare("mine", data_dir=tmp_path / "tfds", arrays=tmp_path / "a.npz")
    prepare("mine", data_dir=tmp_path / "tfds", arrays=tmp_path / "a.npz")
    assert {path.name for path in (tmp_path / "tfds").iterdir()} == {"mine", "downloads"}


def test_a_full_disk_is_one_line(tmp_path):
    pixels = RNG.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels)
    script = f"""
import resource
from ddgan_jax import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
argv = ["prepare", "--dataset=mine", "--arrays={tmp_path}/a.npz", "--data_dir={tmp_path}/tfds"]
raise SystemExit(cli.main(argv))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write the set mine to" in done.stderr and done.stderr.count("\n") == 1
    assert not list((tmp_path / "tfds" / "mine").iterdir())


def test_a_stranger_in_the_place_is_left_alone(tmp_path):
    place = tmp_path / "mnist" / "3.0.1"
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("precious")
    archive = mnist_folder(tmp_path / "files", mnist_files())
    with pytest.raises(UserError, match="is no prepared TFDS set: move it away"):
        prepare("mnist", data_dir=tmp_path, archive=archive, allow_unpublished=True)
    assert [path.name for path in place.iterdir()] == ["thesis.txt"]


BAD = [  # dataset, arguments, what the message says
    ("cifar10", {}, "--download"),
    ("cifar10", {"archive": "x", "download": True}, "`archive` and `download` exclude each other"),
    ("celeb_a_hq/256", {"archive": "x"}, "`archive` and `download` are for cifar10 and mnist"),
    ("celeb_a_hq/256", {}, "must be fetched by hand into"),
    ("svhn_cropped", {}, 'pip install "ddgan-jax[tf]"'),
    ("cifra10", {}, "nearest names: cifar10"),
    ("stacked_mnist", {}, "prepare mnist"),
    ("stacked_digits", {}, "prepare digits"),
    ("folder", {"images": "x"}, "--dataset=NAME --images=FOLDER"),
    ("stl10", {"images": "x"}, "stl10 is the name of another set"),
    ("My-Set", {"images": "x"}, "'My-Set' cannot name a set"),
    ("mine", {"images": "/nowhere"}, "cannot read /nowhere: there is no such file"),
    ("mine", {"arrays": "/nowhere.npz"}, "cannot read /nowhere.npz: there is no such file"),
]


@pytest.mark.parametrize(("dataset", "arguments", "message"), BAD)
def test_what_a_user_can_mend_is_said_in_one_line(
    tmp_path, monkeypatch, dataset, arguments, message
):
    monkeypatch.setattr(
        "ddgan_jax.data.prepare.prepare.importlib.util.find_spec", lambda name: None
    )
    with pytest.raises(UserError) as caught:
        prepare(dataset, data_dir=tmp_path, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": EIGHT, "y": EIGHT}, "x: uint8 (2, 8, 8); y: uint8 (2, 8, 8)): name them `images`"),
        ({"arr_0": EIGHT, "arr_1": EIGHT}, "does not say which of its arrays are the images"),
        ({"arr_0": EIGHT, "arr_1": [0, 1], "arr_2": EIGHT}, "arr_1: int64 (2,); arr_2: uint8 (2, "),
        ({"images": np.array([None, open], object)}, "only numbers and text are read"),
        ({"images": np.zeros((2, 8, 8, 3))}, "is float64 from 0 to 0, and must be uint8: convert"),
        ({"images": np.full((2, 8, 8), 0.5)}, "np.rint(x * 255).astype(np.uint8), if they mean [0"),
        ({"images": np.full((2, 8, 8), -0.5)}, "np.rint((x + 1) * 127.5).astype(np.uint8), if"),
        ({"images": np.full((2, 8, 8), 200.0)}, "np.clip(np.rint(x), 0, 255).astype(np.uint8), if"),
        ({"images": np.full((2, 8, 8), np.nan)}, "holds NaN or infinity"),
        ({"images": np.zeros((2, 8, 8), np.int32)}, "converted with x.astype(np.uint8)"),
        ({"images": np.zeros((2, 8, 8), bool)}, "convert it with x * np.uint8(255)"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, "convert it with x.transpose(0, 2, 3, 1)"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, "without transparency it is x[..., :3]"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "is uint8 (0, 8, 8, 3): it must be"),
        ({"images": np.array(["a", "b"])}, "is <U1 (2,): it must be"),
        ({"images": EIGHT, "labels": np.arange(3)}, "is int64 (3,): it must be one integer >= 0"),
        ({"images": EIGHT, "labels": np.array([0, -1])}, "holds -1 to 0: labels are from 0 to"),
        ({"images": EIGHT, "labels": np.array([0, 2**62])}, "labels are from 0 to 2,147"),
        ({"images": EIGHT, "labels": np.zeros(2)}, "converted with labels.astype(np.int64)"),
        ({"images": EIGHT, "labels": np.eye(2, dtype=int)}, "with labels.argmax(axis=1)"),
        (
            {"images": EIGHT, "labels": np.array([1, 2])},
            "no image has the label 0: number the clas",
        ),
        ({"images": EIGHT, "labels": np.array([1, 2])}, "from 0 without gaps, with labels - 1"),
        (
            {"images": EIGHT, "labels": np.array([0, 12])},
            "the label 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 a",
        ),
        ({"images": EIGHT, "labels": np.array([0, 10**6])}, "and 999,989 more: number the classes"),
        (
            {"images": EIGHT, "labels": np.array([0, 2])},
            "np.unique(labels, return_inverse=True)[1]",
        ),
    ],
)
def test_arrays_that_are_no_images_are_refused_with_the_conversion(tmp_path, arrays, message):
    arrays = {k: np.asarray(v) for k, v in arrays.items()}
    arrays = {
        k: np.array([Evil(print, "ran")]) if v.dtype == object else v for k, v in arrays.items()
    }
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError) as caught:
        prepare("mine", data_dir=tmp_path / "tfds", arrays=tmp_path / "a.npz")
    assert message in str(caught.value) and "a.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "tfds").exists()


PIXELS = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("arrays", "labelled"),
    [
        ({"arr_0": PIXELS}, False),
        ({"arr_0": PIXELS, "arr_1": LABELS}, True),
        ({"arr_0": PIXELS, "labels": LABELS}, True),
        ({"samples": PIXELS}, False),  # the only array of the file
        ({"images": PIXELS, "labels": LABELS[:, None]}, True),
        ({"images": PIXELS, "labels": LABELS.astype(bool)}, True),
        ({"images": PIXELS, "labels": LABELS.astype(np.uint8), "seeds": np.arange(6)}, True),
        ({"images": np.asfortranarray(PIXELS), "labels": LABELS}, True),
    ],
)
def test_the_forms_in_which_the_field_keeps_images(tmp_path, arrays, labelled):
    np.savez(tmp_path / "a.npz", **arrays)
    folder = prepare("mine", data_dir=tmp_path, arrays=tmp_path / "a.npz")
    source = tfds.builder_from_directory(folder).as_data_source("train")
    found = sorted((x["image"].tobytes(), int(x.get("label", 0))) for x in source)
    labels = LABELS if labelled else [0] * 6
    expected = sorted((x.tobytes(), int(y)) for x, y in zip(PIXELS, labels, strict=True))
    assert found == expected and ("label" in source[0]) == labelled


def test_a_file_of_arrays_is_known_by_its_content(tmp_path):
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, PIXELS)
    with open(tmp_path / "a.npy", "wb") as file:
        np.savez(file, images=PIXELS)
    for name in ("a.npz", "a.npy"):
        folder = prepare(name.replace(".", ""), data_dir=tmp_path, arrays=tmp_path / name)
        assert len(tfds.builder_from_directory(folder).as_data_source("train")) == 6


def test_data_dir_is_found_where_tfds_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert catalog.resolve_data_dir("") == tmp_path
    assert catalog.resolve_data_dir("/elsewhere") == catalog.Path("/elsewhere")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalog.resolve_data_dir("") == tmp_path / "tensorflow_datasets"


@pytest.mark.parametrize(
    ("sides", "mode", "folder", "config", "further"),
    [
        ((80, 30, 90), "RGB", "", "64", []),
        ((40, 50, 300), "RGB", "train", "32", []),
        ((40, 50, 300), "RGB", "test", "32", ["split=test"]),
        ((16, 16, 16), "L", None, "32", ["resize=up", "channels=1"]),
    ],
)
def test_the_command_that_is_printed_opens_the_set(
    tmp_path, capsys, sides, mode, folder, config, further
):
    """folder: of image files, which may be a split; None for a file of arrays."""
    images = [Image.new(mode, (side, side), k) for k, side in enumerate(sides)]
    if folder is None:
        np.save(tmp_path / "x.npy", np.stack(images))
    else:
        root = tmp_path / "in" / folder
        root.mkdir(parents=True)
        for k, image in enumerate(images):
            image.save(root / f"{k}.png")
    given = (
        "--arrays=" + str(tmp_path / "x.npy") if folder is None else f"--images={tmp_path / 'in'}"
    )
    data_dir = tmp_path / "sets of mine"
    assert cli.main(["prepare", "--dataset=mine", given, f"--data-dir={data_dir}"]) == 0
    printed = capsys.readouterr().out.splitlines()[-1].removeprefix("train on it: ")
    program, command, config_flag, *flags, workdir = shlex.split(printed)
    assert (program, command, workdir) == ("ddgan", "train", "--workdir=runs/mine")
    assert config_flag == f"--config=folder_ddgan:{config}"
    wanted = {f"--config.data.{field}" for field in ["name=mine", f"dir={data_dir}", *further]}
    assert set(flags) == wanted
    dataset = open_dataset(parse_config(config_flag.removeprefix("--config="), flags))
    assert dataset.info.num_examples == sum(side >= int(config) for side in sides) or further
