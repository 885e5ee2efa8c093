"""The readers of the program, each with a whole file of its kind: what `tests.hostile` damages."""

import gzip
import io
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax
import numpy as np
from PIL import Image

from ddgan_jax import checkpoint, models
from ddgan_jax.config import ConfigDict, files, from_stored
from ddgan_jax.data import array_files, image_checks, image_folders, image_layouts, prepared
from ddgan_jax.data.prepare import archives
from ddgan_jax.data.prepare.prepare import prepare
from ddgan_jax.evaluation import classifier, given
from ddgan_jax.files import run_folder, run_records
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import export, given_image, load, weights
from ddgan_jax.inference.model import Model
from ddgan_jax.interop import nvlabs, nvlabs_checkpoints, pytorch_files
from ddgan_jax.interop.nvlabs_programs import DDGAN, WAVEDIFF, Program
from ddgan_jax.metrics import published, statistics
from ddgan_jax.models.classifier import init_params
from ddgan_jax.randomness import run_key
from ddgan_jax.training.averages import Averages
from ddgan_jax.training.loop import train
from ddgan_jax.viz import charts, report_data, report_page, tradeoff
from tests import hostile, wavediff_checkpoints
from tests.hostile import BINARY, JSON, LINES, TAR, ZIP, Reader
from tests.methods import ROOT, random_params
from tests.test_data_prepare import binary_batch, cifar_archive, mnist_files

GOLDEN = Path(__file__).parent / "golden"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 8, 8, 3), np.uint8)
LABELS = np.arange(6) % 3
RESULT = {
    "metrics": {"fid": 3.5, "precision": 0.5},
    "sampling": {"seconds_per_100_images": 1.0, "denoising_steps": 4, "device": "cpu"},
    "samples": {"count": 50, "images": "x", "comparable_with_published_numbers": False},
    "features": {"network": "inception", "protocol": "tf1"},
    "reference": {"dataset": "x", "count": 10, "preprocessing": "y", "features_kept": 0},
    "model": {"folder": "runs/x", "step": 5},
    "modes": {"kl_floor": 0.1, "classifier": {"accuracy": 0.9}},
}


def make_readers(folder: Path) -> list[Reader]:
    """Make the whole files below the folder; return all readers."""
    parts = (_archives, _arrays, _images, _data_sets, _runs, _exports, _pytorch, _checkpoints)
    readers = []
    for part in parts:
        below = folder / part.__name__.strip("_")
        below.mkdir()
        readers += part(below)
    return readers


def _archives(folder: Path) -> Iterator[Reader]:
    def read(name: str, path: Path) -> Callable[[], Any]:
        return lambda: archives.read(name, path, allow_unpublished=True)

    path = cifar_archive(folder / "python.tar.gz")
    yield Reader("CIFAR pickles", path, read("cifar10", path), TAR)
    path = cifar_archive(folder / "binary.tar.gz", binary_batch, ".bin")
    yield Reader("CIFAR binary", path, read("cifar10", path), TAR)
    path = folder / "mnist.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in mnist_files().items():
            archive.writestr(name, content)
    yield Reader("MNIST zip", path, read("mnist", path), ZIP)
    below = folder / "mnist"
    below.mkdir()
    for name, content in mnist_files().items():
        (below / f"{name}.gz").write_bytes(gzip.compress(content))
    path = below / "train-labels-idx1-ubyte.gz"
    damage = (hostile.gzip_content_changes, hostile.gzip_content_changes, *BINARY)
    yield Reader("MNIST gz", path, read("mnist", below), damage)


def _arrays(folder: Path) -> Iterator[Reader]:
    def score(path: Path) -> Callable[[], Any]:
        return lambda: [chunk.sum() for chunk in given.open_images(path).read()]

    path = folder / "images.npz"
    np.savez(path, images=PIXELS, labels=LABELS)
    yield Reader("npz to prepare", path, lambda p=path: array_files.open_images(p), ZIP)
    path = folder / "samples.npz"
    np.savez_compressed(path, arr_0=PIXELS)
    yield Reader("npz to score", path, score(path), ZIP)
    path = folder / "images.npy"
    np.save(path, (PIXELS / 127.5 - 1).astype(np.float32))
    yield Reader("npy to score", path, score(path), BINARY)
    path = folder / "statistics.npz"
    features = RNG.normal(size=(20, 3)).astype(np.float32)
    made = statistics.add(statistics.empty(3), features)
    statistics.save(path, made, statistics.Provenance("a", "b", "c", "d", "pixels"), features)
    yield Reader("statistics", path, lambda p=path: statistics.load(p), ZIP)
    path = folder / "published.npz"
    np.savez_compressed(path, mu=np.zeros(3), sigma=np.eye(3))

    def read_published(path: Path = path) -> None:
        with mock.patch.object(published, "DIMENSION", 3):
            published.load(path, "tf1")

    yield Reader("published statistics", path, read_published, ZIP)
    path = folder / "classifier.npz"
    params = jax.device_get(init_params(run_key(0), (8, 8, 1), 3))
    about = {"format": classifier.FORMAT, "weights_sha256": classifier.sha256(params)}
    facts = {"dataset": "x", "images": [8, 8, 1], "classes": 3, "accuracy": 0.5, "held_out": 1}
    about |= facts | {"train_steps": 1, "seed": 0}
    classifier.save(path, classifier.Trained(params, about))
    yield Reader("classifier", path, lambda p=path: classifier.load(p), ZIP)


def _images(folder: Path) -> Iterator[Reader]:
    def look(place: Path) -> Callable[[], Any]:
        def read() -> None:
            found = image_folders.open_folder(place)
            image_layouts.layout_of(found)
            image_checks.check_all(found)

        return read

    for ending in ("png", "jpeg", "bmp", "gif", "webp"):
        below = folder / ending
        (below / "class").mkdir(parents=True)
        path = below / "class" / f"a.{ending}"
        Image.fromarray(PIXELS[0]).save(path)
        (below / "class" / "b.png").write_bytes(_png(PIXELS[1]))
        yield Reader(f"{ending} in a folder", path, look(below), BINARY)
    path = folder / "edm.zip"
    with zipfile.ZipFile(path, "w") as archive:
        names = [f"00000/img{k:08d}.png" for k in range(len(PIXELS))]
        for name, image in zip(names, PIXELS, strict=True):
            archive.writestr(name, _png(image))
        pairs = [[name, int(label)] for name, label in zip(names, LABELS, strict=True)]
        archive.writestr("dataset.json", json.dumps({"labels": pairs}))
    yield Reader("zip of images", path, look(path), ZIP)
    below = folder / "edm"
    below.mkdir()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(below)
    yield Reader("dataset.json", below / "dataset.json", look(below), JSON)
    path = folder / "given.png"
    path.write_bytes(_png(PIXELS[0]))
    yield Reader("a given image", path, lambda p=path: given_image.read(p, 8, 3), BINARY)


def _data_sets(folder: Path) -> Iterator[Reader]:
    np.savez(folder / "x.npz", images=PIXELS, labels=LABELS)
    made = Path(prepare("mine", data_dir=folder, arrays=folder / "x.npz"))
    for name in (prepared.FEATURES, prepared.INFO):
        yield Reader(name, made / name, lambda: prepared.open_prepared(made), JSON)


def _runs(folder: Path) -> Iterator[Reader]:
    run = folder / "run"
    _train(run)
    (run / run_folder.ORIGIN).write_text(
        json.dumps({"provenance": {"imported_from": "x", "sha256": "0" * 64}, "licence": "y"})
    )
    (run / "evaluations").mkdir()
    result = run / "evaluations" / "a.json"
    result.write_text(json.dumps(RESULT))

    # Most damage changes no curve, and drawing the same ones again would take most of the time.
    drawn: dict[str, str] = {}

    def line_chart(*args: Any, **names: Any) -> str:
        key = repr((args, names))
        drawn[key] = drawn.get(key) or charts.line_chart(*args, **names)
        return drawn[key]

    def page() -> None:
        found = report_data.read(run)
        with mock.patch.object(report_page, "charts", SimpleNamespace(**vars(charts))) as patched:
            patched.line_chart = line_chart
            text = report_page.render(found)
        assert "<script>alert" not in text and "\x1b" not in text

    names = (run_folder.METRICS, run_folder.MACHINES, run_folder.CONFIG)
    for name in names:
        yield Reader(f"page, {name}", run / name, page, JSON if name.endswith("n") else LINES)
    yield Reader("page, result", result, page, JSON)
    yield Reader("page, picture", run / "samples" / "step_2.png", page, BINARY)

    def chart() -> None:
        found = [tradeoff.read(path, "fid") for path in tradeoff.find(str(result))]
        assert "<script>alert" not in tradeoff.chart(found, "fid")

    yield Reader("trade-off, result", result, chart, JSON)
    silent: dict[str, Any] = {"report": lambda line: None}

    def resume() -> None:
        RunFolder.at(run).drop_metrics_from(2, **silent)

    kept = RunFolder.at(run)
    kept.write_interval(run_records.Interval(0, 2, {"g_loss": ("3/4", 2), "r1": ("1/8", 1)}))
    kept.write_trackers({"wandb": "a1b2", "mlflow": "c3"})

    def interval() -> None:
        if found := kept.read_interval(2, **silent):
            assert all(math.isfinite(x) for x in Averages.stored(found).means().values())

    yield Reader("interval", run / run_folder.INTERVAL, interval, JSON)
    trackers = run / run_folder.TRACKERS
    yield Reader("trackers", trackers, lambda: kept.read_trackers(**silent), JSON)
    yield Reader("metrics at a resume", run / run_folder.METRICS, resume, LINES)
    stored = run / run_folder.CONFIG
    yield Reader("--config=FILE.json", stored, lambda: files.load_config(str(stored)), JSON)
    for name, damage in ((run_folder.ORIGIN, JSON), (run_folder.METRICS, LINES)):
        yield Reader(f"model, {name}", run / name, lambda: load.from_run(run, **silent), damage)


def _exports(folder: Path) -> Iterator[Reader]:
    config = files.load_config(f"{ROOT}/configs/mog25.py:tiny")
    params = random_params(models.abstract_params(config)[0])
    about = {"provenance": {"a": "b"}, "licence": "c", "metrics": {"fid": 1.5}}
    out = folder / "export"
    export.write(Model(config, params, 5, "ema", about), out, grid_seeds=range(4))

    def read() -> None:
        load.load(out)

    yield Reader("config.json of an export", out / "config.json", read, JSON)
    yield Reader("model.safetensors", out / "model.safetensors", read, BINARY)
    # With the checksums of what is there, as somebody would write them who means harm.
    other = folder / "other"
    shutil.copytree(out, other)
    stored = (other / "config.json").read_text()

    def read_signed() -> None:
        about = json.loads(stored)
        content = (other / "model.safetensors").read_bytes()
        about["sha256"]["model.safetensors"] = export.sha256(content)
        (other / "config.json").write_text(json.dumps(about))
        load.load(other)

    yield Reader("signed safetensors", other / "model.safetensors", read_signed, BINARY)
    alone = folder / "config only.json"
    alone.write_text(json.dumps(json.loads(stored)["config"]))

    def read_config() -> None:
        tree = files.from_json(alone.read_bytes().decode(errors="replace")).to_dict()
        from_stored(tree)

    yield Reader("a stored config", alone, read_config, JSON)

    def read_signed_config() -> None:
        about = json.loads(stored)
        try:
            about["config"] = json.loads(alone.read_bytes())
        except (ValueError, RecursionError):
            return
        about["sha256"]["config"] = export.config_sha256(about["config"])
        (other / "config.json").write_text(json.dumps(about))
        load.load(other)

    yield Reader("a signed config", alone, read_signed_config, JSON)
    content = (out / "model.safetensors").read_bytes()
    path = folder / "header.json"
    length = int.from_bytes(content[:8], "little")
    path.write_bytes(content[8 : 8 + length])
    template = models.abstract_params(config)[0]

    def read_header() -> None:
        header = path.read_bytes()
        file = len(header).to_bytes(8, "little") + header + content[8 + length :]
        weights.from_safetensors(file, template, "x.safetensors")

    yield Reader("header of safetensors", path, read_header, JSON)


def _pytorch(folder: Path) -> Iterator[Reader]:
    path = folder / "netG_tiny.pth"
    shutil.copy(GOLDEN / "netG_tiny.pth", path)
    yield Reader("PyTorch file", path, lambda p=path: pytorch_files.read(p), ZIP)
    args = folder / "args.json"
    options = {"dataset": "cifar10", "image_size": 16, "ch_mult": [1, 2]}
    args.write_text(json.dumps(options | dict(DDGAN.published["cifar10"])))
    yield Reader("official options", args, lambda: _config_of_options(args, DDGAN), JSON)
    yield from _wavediff(folder)


def _wavediff(folder: Path) -> Iterator[Reader]:
    args, path = folder / "wavediff.json", folder / "wnetG_tiny.pth"
    args.write_text(json.dumps(wavediff_checkpoints.GENERATOR_OPTIONS))
    yield Reader("WaveDiff options", args, lambda: _config_of_options(args, WAVEDIFF), JSON)
    shutil.copy(wavediff_checkpoints.GENERATOR, path)
    config = _config_of_options(args, WAVEDIFF)
    yield Reader(
        "WaveDiff weights",
        path,
        lambda: nvlabs.import_generator(pytorch_files.read(path), config),
        ZIP,
    )


def _config_of_options(path: Path, program: Program) -> ConfigDict:
    config = program.config_from_args(nvlabs_checkpoints.read_args(str(path), program))
    program.check_config(config)
    return config


def _checkpoints(folder: Path) -> Iterator[Reader]:
    run = folder / "run"
    _train(run)
    directory = run / "checkpoints"

    def read() -> None:
        checkpoint.load_ema(directory, report=lambda line: None)

    step = directory / "2"
    yield Reader("manifest", step / "manifest" / "metadata", read, JSON)
    yield Reader("config of a checkpoint", step / "config" / "metadata", read, JSON)
    yield Reader("metadata of arrays", step / "ema" / "_METADATA", read, JSON)


def _train(run: Path) -> None:
    config = files.load_config(f"{ROOT}/configs/mog25.py:tiny")
    config.data.max_examples = 100
    config.checkpoint.save_every_steps = 1
    train(config, run)


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()
