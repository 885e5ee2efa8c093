"""The whole run, as a user starts it: interrupted in every way, it ends with the same bits."""

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddgan_jax import build, checkpoint, cli, distributed
from ddgan_jax.config.files import from_dict, load_config
from ddgan_jax.data.prepare.prepare import prepare
from ddgan_jax.errors import UserError
from ddgan_jax.training import hooks, loop
from ddgan_jax.training.stopping import StopRequest
from tests.methods import ROOT, SMALLEST, config_file, config_of, every_method

NUM_STEPS = 20
SETTINGS = {
    "train.num_steps": NUM_STEPS,
    "checkpoint.save_every_steps": 4,
    "checkpoint.keep_latest": 3,
    "log.every_steps": 5,
    "log.samples_every_steps": 10,
    "eval.every_steps": 3,
    "eval.num_samples": 12,
    "eval.features": "pixels",
}
# Each is a mean over the steps since the one before; checkpoints and scores have lines, too.
LINES = [3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 18, 20]


@pytest.fixture(scope="module", autouse=True)
def data_dir(tmp_path_factory):
    """The folder of data sets, and in it the cache of all runs, in this process or in others.

    Statistics of real images from another cache could differ in their last digits.
    """
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def command(method: str, workdir: Path, data_dir: Path) -> list[str]:
    """A run on the digits, as typed in a shell."""
    values = SMALLEST[method] | SETTINGS | {"data.dir": data_dir}
    return [
        *(sys.executable, "-m", "ddgan_jax", "train", f"--config={config_file(method)}"),
        *(f"--config.{name}={value}" for name, value in values.items()),
        f"--workdir={workdir}",
    ]


def final_arrays(workdir: Path) -> dict[str, int]:
    """The checksums of all arrays of the final checkpoint."""
    manifest = json.loads(
        (workdir / "checkpoints" / str(NUM_STEPS) / "manifest" / "metadata").read_text()
    )
    return manifest["content"]["state"] | manifest["content"]["ema"]


def best_arrays(workdir: Path) -> tuple[list[int], list[dict]]:
    """The steps and checksums of what the run kept as its best."""
    folder = workdir / "best" / "checkpoints"
    steps = checkpoint.list_steps(folder)
    files = [folder / str(step) / "manifest" / "metadata" for step in steps]
    return steps, [json.loads(file.read_text())["content"] for file in files]


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", autouse=True)
def steps_are_compiled_once():
    """Runs in this process with the same networks share the programs of their steps."""
    made: dict[str, Any] = {}
    make = loop._train_step

    def remembered(config, devices, layout, out):
        fields = {name: config[name] for name in config if name not in ("log", "checkpoint")}
        key = str((fields, build.step))
        return made.setdefault(key, make(config, devices, layout, out))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_train_step", remembered)
        yield


@pytest.fixture
def one_device(monkeypatch):
    """Commands in the test have one of the four devices that the runs have."""
    monkeypatch.setattr(distributed, "local_devices", lambda: jax.devices()[:1])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_dir):
    """undisturbed(method) -> the folder of a run that nothing interrupted."""

    @functools.cache
    def make(method: str) -> Path:
        workdir = tmp_path_factory.mktemp("runs") / method
        loop.train(config_of_run(method, data_dir), workdir)
        return workdir

    return make


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen) -> None:
    """Returns once the process has done this step, and once there is a checkpoint.

    It is written in the background.
    """
    path = workdir / "metrics.jsonl"
    while process.poll() is None:
        told = metrics(workdir)[-1:] if path.exists() else []
        if told and told[0]["step"] >= step and checkpoint.list_steps(workdir / "checkpoints"):
            return
        time.sleep(0.01)


class EarlyStop(StopRequest):
    """Asks, as Ctrl-C does, after the first step that has no line of metrics."""

    def at(self, step: int) -> bool:
        if step not in LINES:
            self.signal_number = signal.SIGINT
        return super().at(step)


@every_method
def test_interrupted_run_ends_with_the_same_bits(method, tmp_path, data_dir, undisturbed, capsys):
    """Killed as a process, stopped between two lines of metrics, and each time gone on with.

    What a process does with each signal is the subject of test_signals.
    """
    reference, workdir = undisturbed(method), tmp_path / "run"
    process = subprocess.Popen(
        command(method, workdir, data_dir),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(workdir, 6, process)
    process.kill()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, stderr
    config = config_of_run(method, data_dir)
    if method == "ddgan":
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, workdir, stop=EarlyStop())
        assert metrics(workdir)[-1]["step"] not in LINES
    capsys.readouterr()
    loop.train(config, workdir)
    told = capsys.readouterr().out
    assert "continuing after step" in told
    assert told.splitlines()[-3:] == [
        f"done: {NUM_STEPS} steps",
        f"samples:      {workdir}/samples/step_{NUM_STEPS}.png",
        f"sample more:  ddgan sample --workdir={workdir} --seeds=0-99 --out=grid.png",
    ]
    assert final_arrays(workdir) == final_arrays(reference)
    assert best_arrays(workdir) == best_arrays(reference)

    def losses(line: dict) -> dict:
        return {k: v for k, v in line.items() if k not in ("time", "images_per_second")}

    ours, theirs = metrics(workdir), metrics(reference)
    for our, their in zip(ours, theirs, strict=True):
        assert losses(our) == losses(their)
    for kind in ("step", "trajectory"):
        grids = [path / "samples" / f"{kind}_{NUM_STEPS}.png" for path in (workdir, reference)]
        assert grids[0].read_bytes() == grids[1].read_bytes()


def test_run_folder_holds_what_a_run_promises(undisturbed):
    workdir = undisturbed("ddgan")
    assert checkpoint.list_steps(workdir / "checkpoints") == [12, 16, 20]
    assert sorted(p.name for p in (workdir / "samples").iterdir()) == [
        f"{kind}_{step}.png" for kind in ("step", "trajectory") for step in (10, 20)
    ]
    assert [line["step"] for line in metrics(workdir)] == LINES
    assert json.loads((workdir / "config.json").read_text())["train"]["num_steps"] == NUM_STEPS
    assert list(workdir.glob("events.out.tfevents.*"))


@every_method
def test_best_checkpoint_is_a_run_folder_of_the_best_number(
    method, tmp_path, undisturbed, monkeypatch, one_device
):
    """Scored again on one device, it has the number that the run gave it on four."""
    workdir = undisturbed(method)
    name = "eval/frechet_pixels_12"
    scores = {line["step"]: line[name] for line in metrics(workdir) if name in line}
    assert list(scores) == [3, 6, 9, 12, 15, 18, 20]
    best = min(scores, key=scores.get)
    assert best_arrays(workdir)[0] == [best]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    argv = ["--features=pixels", "--metrics=frechet", "--num=12", "--allow-small"]
    argv += [f"--workdir={workdir / 'best'}", f"--out={tmp_path / 'best.json'}"]
    assert cli.main(["evaluate", *argv]) == 0
    rescored = json.loads((tmp_path / "best.json").read_text())
    assert rescored["model"]["step"] == best
    assert rescored["metrics"]["frechet_pixels_12"] == pytest.approx(scores[best], rel=1e-6)


def config_of_run(method: str, data_dir: Path, **changes):
    config = config_of(method, data__dir=str(data_dir))
    config.update_from_flattened_dict(SETTINGS)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def test_finished_run_is_left_alone(undisturbed, data_dir, capsys):
    workdir = undisturbed("ddgan")
    before = {p: p.stat().st_mtime_ns for p in (workdir / "checkpoints").rglob("*")}
    loop.train(config_of_run("ddgan", data_dir), workdir)
    assert f"done: {NUM_STEPS} steps" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (workdir / "checkpoints").rglob("*")} == before


def test_other_config_is_refused_by_the_folder(undisturbed, data_dir):
    config = config_of_run("ddgan", data_dir, train__batch_size=16, optimizer__beta1=0.3)
    with pytest.raises(UserError) as error:
        loop.train(config, undisturbed("ddgan"))
    assert "optimizer.beta1: 0.5 in the run folder, 0.3 now" in str(error.value)
    assert "train.batch_size: 8 in the run folder, 16 now" in str(error.value)


# ---- sampling from a run folder


def sample(workdir: Path, out: Path, *argv: str) -> np.ndarray:
    """What `ddgan sample` draws, on one device: the run's own grids were drawn on four."""
    assert cli.main(["sample", f"--workdir={workdir}", f"--out={out}", *argv]) == 0
    return np.load(out)


def images_of_grid(workdir: Path, count: int) -> list[np.ndarray]:
    """The first row of the run's last grid: two columns of 8 pixels, enlarged."""
    grid = np.asarray(Image.open(workdir / "samples" / f"step_{NUM_STEPS}.png"))
    scale = (grid.shape[1] - 2) // 16
    lefts = [i * (8 * scale + 2) for i in range(count)]
    return [grid[: 8 * scale : scale, left : left + 8 * scale : scale] for left in lefts]


@pytest.mark.parametrize("seeds", ["0-6", "6,1,0"])
def test_sample_command_draws_the_seeds_images(seeds, tmp_path, undisturbed, one_device):
    workdir = undisturbed("ddgan")
    drawn = sample(workdir, tmp_path / "x.npy", f"--seeds={seeds}")
    places = {"0-6": (0, 1), "6,1,0": (2, 1)}[seeds]
    for image, place in zip(images_of_grid(workdir, 2), places, strict=True):
        np.testing.assert_array_equal(drawn[place, ..., 0], image)


def test_sample_command_draws_every_seed_of_every_class(tmp_path, undisturbed, one_device):
    """The run's grid shows seed 0 of the first classes; a seed alone has its own class."""
    workdir = undisturbed("siddm")
    drawn = sample(workdir, tmp_path / "all.npy", "--labels=all", "--seeds=0,7")
    assert drawn.shape == (20, 8, 8, 1)
    for image, place in zip(images_of_grid(workdir, 2), (0, 2), strict=True):
        np.testing.assert_array_equal(drawn[place, ..., 0], image)
    own = sample(workdir, tmp_path / "own.npy", "--seeds=7,0")
    np.testing.assert_array_equal(own, drawn[[2 * 7 + 1, 0]])

    folder = tmp_path / "folder"
    argv = [f"--workdir={workdir}", f"--out={folder}", "--labels=3,1", "--seeds=0,7"]
    assert cli.main(["sample", *argv]) == 0
    assert sorted(p.name for p in folder.glob("*.png")) == [
        f"class{label:04d}_{seed:06d}.png" for label in (1, 3) for seed in (0, 7)
    ]
    written = np.asarray(Image.open(folder / "class0003_000007.png"))
    np.testing.assert_array_equal(written, drawn[2 * 3 + 1, ..., 0])


def test_sample_command_takes_another_number_of_steps(tmp_path, undisturbed, one_device):
    workdir = undisturbed("siddm")
    as_trained, explicit, more = (
        sample(workdir, tmp_path / f"{n}.npy", "--seeds=0-3", f"--denoising_steps={n}")
        for n in (0, 2, 3)
    )
    np.testing.assert_array_equal(as_trained, explicit)  # the digits are trained with two steps
    assert not np.array_equal(as_trained, more)


@pytest.mark.parametrize(
    ("method", "argv", "message"),
    [
        ("ddgan", ["--labels=all"], "--labels: this model was trained without classes"),
        ("ddgan", ["--labels=3"], "--labels: this model was trained without classes"),
        ("siddm", ["--labels=207"], "--labels: 207 is not one of the classes 0 to 9"),
        ("ddgan", ["--denoising_steps=4"], "sampling.num_steps=4: diffusion.schedule='vp'"),
        ("ddgan", ["--step=13"], "no checkpoint of step 13"),
    ],
)
def test_what_a_model_cannot_draw_is_one_line(method, argv, message, tmp_path, undisturbed, capsys):
    workdir = undisturbed(method)
    argv = ["sample", f"--workdir={workdir}", f"--out={tmp_path / 'x.png'}", *argv]
    assert cli.main(argv) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and f"ddgan sample: {message}" in errors
    assert not list(tmp_path.iterdir())


# ---- whole runs in this process


def test_non_finite_loss_stops_the_run(tmp_path, monkeypatch):
    def diverges_at_step_5(config, *, r1):
        def step(state, batch, key):
            loss = 1 / jnp.maximum(4 - state.step, 0)
            return state._replace(step=state.step + 1), {"g_loss": loss}

        return step

    monkeypatch.setattr(build, "step", diverges_at_step_5)
    config = load_config(f"{ROOT}/configs/mog25.py:tiny")
    config.train.num_steps = 9
    config.log.every_steps = config.checkpoint.save_every_steps = 3
    with pytest.raises(UserError, match="step 5: g_loss is inf; the checkpoints so far are"):
        loop.train(config, tmp_path)
    assert checkpoint.list_steps(tmp_path / "checkpoints") == [3]
    [line] = metrics(tmp_path)
    assert line["step"] == 3
    assert line["g_loss"] == pytest.approx((1 / 4 + 1 / 3 + 1 / 2) / 3)  # the mean of its steps


def write_array_set(folder: Path, name: str, config) -> None:
    """A prepared set of random images that fits the config."""
    size, channels = config.data.image_size, config.data.channels
    pixels = np.random.default_rng(0).integers(0, 256, (20, size, size, channels), np.uint8)
    np.savez(folder / "arrays.npz", images=pixels)
    prepare(name, data_dir=str(folder), arrays=str(folder / "arrays.npz"))


def check_finished_run(workdir: Path, config, state) -> None:
    """The state has made the config's steps, and the folder gives back the same parameters."""
    assert int(state.step) == config.train.num_steps
    assert checkpoint.list_steps(workdir / "checkpoints")[-1] == config.train.num_steps
    step, stored, ema = checkpoint.load_ema(workdir / "checkpoints", report=print)
    assert from_dict(stored) == config
    jax.tree.map(np.testing.assert_array_equal, ema, jax.device_get(state.generator.ema_params))


def test_shipped_config_trains_two_steps(tmp_path, monkeypatch):
    """The networks that the digits do not have: NCSN++ of two levels and the large discriminator.

    Without R1, which takes as long again to compile and treats both discriminators alike, in one
    denoising step, and without the picture of several.
    """
    config = load_config(f"{ROOT}/configs/celebahq256_ddgan.py:tiny")
    config.objective.r1_gamma, config.diffusion.num_timesteps = 0.0, 1
    monkeypatch.setattr(hooks, "make_step_picture", lambda *arguments: None)
    write_array_set(tmp_path, "random_images", config)
    config.data.name, config.data.dir = "random_images", str(tmp_path)
    config.data.split = "train"
    assert config.train.num_steps == 2
    check_finished_run(tmp_path / "run", config, loop.train(config, tmp_path / "run"))


def test_points_train_as_images_do(tmp_path):
    """The 25 Gaussians through the same run, with R1 in every other step; the grid is a scatter."""
    config = load_config(f"{ROOT}/configs/mog25.py:tiny")
    config.objective.r1_gamma, config.objective.r1_interval = 0.1, 2
    config.train.num_steps = 3
    state = loop.train(config, tmp_path)
    check_finished_run(tmp_path, config, state)
    # A line has no mean of what none of its steps computes.
    assert ["r1" in line for line in metrics(tmp_path)] == [True, False, True]
    assert Image.open(tmp_path / "samples" / "step_3.png").size == (512, 512)


def test_classes_that_the_set_does_not_have(data_dir, tmp_path):
    config = config_of_run("siddm", data_dir, data__num_classes=11)
    with pytest.raises(UserError, match="data.num_classes=11, but digits has 10 classes: set it"):
        loop.train(config, tmp_path)
    assert not list(tmp_path.iterdir())
