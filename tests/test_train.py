"""The whole run, as a user starts it: interrupted in every way, it ends with the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddgan_jax import checkpoint, train, train_step
from ddgan_jax.config_files import from_dict, load_config
from ddgan_jax.data.prepare import prepare
from ddgan_jax.errors import UserError

ROOT = Path(__file__).parents[1]
NUM_STEPS = 24
SETTINGS = {
    "train.num_steps": NUM_STEPS,
    "checkpoint.save_every_steps": 4,
    "checkpoint.keep_latest": 3,
    "log.every_steps": 1,
    "log.samples_every_steps": 12,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tfds")


def command(workdir: Path, data_dir: Path, **settings) -> list[str]:
    """A tiny run on the digits, as typed in a shell."""
    values = SETTINGS | {"data.dir": data_dir} | settings
    return [
        *(sys.executable, "-m", "ddgan_jax", "train", "--config=configs/digits_ddgan.py:tiny"),
        *(f"--config.{name}={value}" for name, value in values.items()),
        f"--workdir={workdir}",
    ]


def environment() -> dict[str, str]:
    # One device, as on a laptop; the tests' own compilation cache.
    return os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def run(workdir: Path, data_dir: Path, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(workdir, data_dir, **settings),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )


def final_arrays(workdir: Path) -> dict[str, int]:
    """The checksums of all arrays of the final checkpoint."""
    manifest = json.loads(
        (workdir / "checkpoints" / str(NUM_STEPS) / "manifest" / "metadata").read_text()
    )
    return manifest["content"]["state"] | manifest["content"]["ema"]


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_dir) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    result = run(workdir, data_dir)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-3:] == [
        f"done: {NUM_STEPS} steps",
        f"samples:      {workdir}/samples/step_{NUM_STEPS}.png",
        f"sample more:  ddgan sample --workdir={workdir} --seeds=0-99 --out=grid.png",
    ]
    return workdir


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen) -> None:
    path = workdir / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.01)


def test_interrupted_run_ends_with_the_same_bits(tmp_path, data_dir, undisturbed):
    workdir = tmp_path / "run"
    ways = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    for step, how in zip(sorted(random.Random(0).sample(range(1, 20), 4)), ways, strict=True):
        process = subprocess.Popen(
            command(workdir, data_dir),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_step(workdir, step, process)
        process.send_signal(how)
        _, stderr = process.communicate(timeout=300)
        code = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
        assert process.returncode == code, stderr
        if how == signal.SIGINT:
            assert "same command continues" in stderr
    result = run(workdir, data_dir)
    assert result.returncode == 0, result.stderr
    assert "continuing after step" in result.stdout
    assert final_arrays(workdir) == final_arrays(undisturbed)

    def losses(line: dict) -> dict:
        return {k: v for k, v in line.items() if k not in ("time", "images_per_second")}

    ours, theirs = metrics(workdir), metrics(undisturbed)
    assert [losses(line) for line in ours] == [losses(line) for line in theirs]
    grids = [path / "samples" / f"step_{NUM_STEPS}.png" for path in (workdir, undisturbed)]
    assert grids[0].read_bytes() == grids[1].read_bytes()


def test_run_folder_holds_what_a_run_promises(undisturbed):
    assert checkpoint.list_steps(undisturbed / "checkpoints") == [16, 20, 24]
    assert sorted(p.name for p in (undisturbed / "samples").iterdir()) == [
        "step_12.png",
        "step_24.png",
    ]
    assert [line["step"] for line in metrics(undisturbed)] == list(range(1, NUM_STEPS + 1))
    assert json.loads((undisturbed / "config.json").read_text())["train"]["num_steps"] == NUM_STEPS
    assert list(undisturbed.glob("events.out.tfevents.*"))


def test_finished_run_is_left_alone(undisturbed, data_dir):
    before = {p: p.stat().st_mtime_ns for p in (undisturbed / "checkpoints").rglob("*")}
    result = run(undisturbed, data_dir)
    assert result.returncode == 0 and f"done: {NUM_STEPS} steps" in result.stdout
    assert {p: p.stat().st_mtime_ns for p in (undisturbed / "checkpoints").rglob("*")} == before


def test_other_config_is_refused_by_the_folder(undisturbed, data_dir):
    result = run(undisturbed, data_dir, **{"train.batch_size": 16, "optimizer.beta1": 0.3})
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "optimizer.beta1: 0.5 in the run folder, 0.3 now" in result.stderr
    assert "train.batch_size: 8 in the run folder, 16 now" in result.stderr


@pytest.mark.parametrize("seeds", ["0-6", "6,3"])
def test_sample_command_draws_the_seeds_images(seeds, tmp_path, undisturbed):
    out = tmp_path / "x.npy"
    arguments = [f"--workdir={undisturbed}", f"--seeds={seeds}", f"--out={out}"]
    subprocess.run(
        [sys.executable, "-m", "ddgan_jax", "sample", *arguments],
        cwd=ROOT,
        env=environment(),
        check=True,
    )
    drawn = np.load(out)
    # The run's own grid shows seeds 0 to 3 at two columns, enlarged; images 8 pixels wide.
    grid = np.asarray(Image.open(undisturbed / "samples" / f"step_{NUM_STEPS}.png"))
    scale = (grid.shape[0] - 2) // 16
    cell = 8 * scale + 2
    expected = grid[cell : cell + 8 * scale : scale, cell : cell + 8 * scale : scale]  # seed 3
    np.testing.assert_array_equal(drawn[3 if seeds == "0-6" else 1, ..., 0], expected)


def tiny_config(data_dir: Path, **settings):
    config = load_config("configs/digits_ddgan.py:tiny")
    for name, value in ({"data.dir": str(data_dir)} | settings).items():
        section, field = name.split(".")
        config[section][field] = value
    return config


def test_non_finite_loss_stops_the_run(tmp_path, data_dir, monkeypatch):
    monkeypatch.chdir(ROOT)

    def diverges_at_step_5(config, *, r1):
        def step(state, batch, key):
            loss = 1 / jnp.maximum(4 - state.step, 0)
            return state._replace(step=state.step + 1), {"g_loss": loss}

        return step

    monkeypatch.setattr(train_step, "make_train_step", diverges_at_step_5)
    settings = {"train.num_steps": 9, "log.every_steps": 3, "checkpoint.save_every_steps": 3}
    with pytest.raises(UserError, match="g_loss is inf: it happened between steps 4 and 6"):
        train.train(tiny_config(data_dir, **settings), tmp_path)
    assert checkpoint.list_steps(tmp_path / "checkpoints") == [3]
    assert [line["step"] for line in metrics(tmp_path)] == [3]


def write_array_set(folder: Path, name: str, config) -> None:
    """A prepared set of random images that fits the config."""
    size, channels = config.data.image_size, config.data.channels
    pixels = np.random.default_rng(0).integers(0, 256, (20, size, size, channels), np.uint8)
    np.savez(folder / "arrays.npz", images=pixels)
    prepare(name, data_dir=str(folder), arrays=str(folder / "arrays.npz"))


# The other configs have the networks of one of these.
@pytest.mark.parametrize("name", ["cifar10_ddgan", "celebahq256_ddgan"])
def test_shipped_config_trains_two_steps(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(f"configs/{name}.py:tiny")
    write_array_set(tmp_path, "random_images", config)
    config.data.name, config.data.dir = "random_images", str(tmp_path)
    config.data.split = "train"
    if name == "celebahq256_ddgan":
        config.objective.r1_interval = 1  # one program less to compile; the other config has two
    state = train.train(config, tmp_path / "run")
    assert int(state.step) == config.train.num_steps == 2
    assert checkpoint.list_steps(tmp_path / "run" / "checkpoints") == [2]
    step, stored, ema = checkpoint.load_ema(tmp_path / "run" / "checkpoints", report=print)
    assert from_dict(stored) == config
    jax.tree.map(np.testing.assert_array_equal, ema, jax.device_get(state.generator.ema_params))
