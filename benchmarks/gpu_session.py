"""Measure everything on a GPU, in pieces of a few minutes that go on where the last one stopped.

    python -m benchmarks.gpu_session --out=results --data=DATA --runs=RUNS

Does the next pieces for --budget seconds and ends; the same command does the ones after them, until
it says that nothing is left. A piece that is cut off begins again, or, if it trains, goes on from
its checkpoint. OUT gets small files: JSON reports, tables, grids of samples. RUNS gets checkpoints.
Data sets lie prepared in DATA (`ddgan prepare`); without them --parts=ab. The parts, in order:

    a  benchmarks of the shipped configs         d  Stacked MNIST
    b  the 25 Gaussians, the whole table         e  digits by class, SIDDM
    c  CIFAR-10, for as long as there is
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import command
from benchmarks.scaling import DEVICES
from ddgan_jax.cli.arguments import Flag, parse_flags
from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError

FLAGS = (
    Flag("out", "FOLDER", "for reports and pictures", "results"),
    Flag("runs", "FOLDER", "for run folders, which are large", "runs"),
    Flag("data", "FOLDER", "where prepared data sets lie", ""),
    Flag("parts", "LETTERS", "which parts", "abcde"),
    Flag("budget", "SECONDS", "after which this call ends", 540, "integer"),
    Flag("steps", "N", "train steps of CIFAR-10 in all, its schedule shortened to them", "20000"),
    Flag("dry_run", "", "print the commands of what is left and run nothing", False, "switch"),
)

# Exit code of a run that was asked to stop and has saved a checkpoint.
STOPPED = 75
# Seconds that it gets for that.
GRACE = 60.0
# A piece with fewer seconds left is left to the next call.
LEAST = 30.0
# Without the weights of the Inception network, distances are those of a classifier's features.
_EVALUATIONS = {
    "cifar10_ddgan": ("--features=classifier", "--num=10000", "--allow_small"),
    "stacked_mnist_ddgan": ("--features=classifier", "--metrics=modes"),
    "digits_siddm": ("--features=classifier", "--num=2000", "--allow_small"),
}


class Piece(NamedTuple):
    """A command. report: the file for its standard output; None if it writes files itself."""

    name: str
    argv: tuple[str, ...]
    report: str | None = None


def pieces(parts: str, out: Path, runs: Path, data: str, steps: int) -> Iterator[Piece]:
    """Yield all pieces of the parts in their order."""
    make = {
        "a": lambda: _benchmarks(out),
        "b": lambda: _mixture(out),
        "c": lambda: _cifar10(out, runs, data, steps),
        "d": lambda: _training(out, runs, "stacked_mnist_ddgan", 10_000, data),
        "e": lambda: _training(out, runs, "digits_siddm", 10_000, data, dtype="float32"),
    }
    for part in parts:
        yield from make[part]()


def _config(name: str) -> str:
    return f"--config=configs/{name}.py"


def _benchmarks(out: Path) -> Iterator[Piece]:
    def benchmark(program: str, name: str, *flags: str) -> Piece:
        argv = (sys.executable, "-m", f"benchmarks.{program}", *flags)
        return Piece(f"gpu_{name}", argv, f"gpu_{name}.json")

    peak = f"--peak={out / 'gpu_peak.json'}"
    yield benchmark("peak", "peak")
    for config in sorted(set(DEVICES) - {"mog25"}):
        # One device gets the share that it would have on the hardware of the paper.
        batch = load_config(f"configs/{config}.py").train.batch_size // DEVICES[config]
        for dtype in ("bfloat16", "float32"):
            settings = (
                *(_config(config), peak, f"--config.train.compute_dtype={dtype}"),
                f"--config.train.batch_size={batch}",
            )
            yield benchmark("train_step", f"speed_{config}_step_{dtype}", *settings)
            sampler = (*settings, "--num=64")
            yield benchmark("sampler", f"speed_{config}_sampler_{dtype}", *sampler)
    for steps in (1, 2, 4, 8):
        flags = (
            *(_config("cifar10_ddgan"), peak, "--config.train.compute_dtype=bfloat16"),
            *(f"--config.diffusion.num_timesteps={steps}", "--num=100"),
        )
        yield benchmark("sampler", f"speed_nfe_{steps}", *flags)
    for dtype in ("float32", "bfloat16"):
        setting = (_config("cifar10_ddgan"), f"--config.train.compute_dtype={dtype}")
        theirs = f"--baseline={sys.executable} benchmarks/cifar10_torch.py"
        how = f"--device=cuda --compute={dtype} --calls=20"
        for r1, name, flag in (("no", "step", ""), ("yes", "step_r1", " --r1")):
            ours = (*setting, "--config.train.batch_size=64", f"--r1={r1}")
            baseline = f"{theirs} step --batch=64 {how}{flag}"
            yield benchmark("train_step", f"torch_{name}_{dtype}", *ours, baseline)
        baseline = f"{theirs} sample --batch=100 {how}"
        yield benchmark("sampler", f"torch_sampler_{dtype}", *setting, "--num=100", baseline)
    for what in ("train_step", "sampler"):
        flags = ("--config.train.compute_dtype=bfloat16", "--config.train.batch_size=64")
        profile = (_config("cifar10_ddgan"), f"--what={what}", "--num=64", *flags)
        yield benchmark("profiling", f"profile_{what}", *profile)
    for batch in (512, 4_000):
        flags = (f"{_config('mog25')}:siddm", f"--config.train.batch_size={batch}", "--seeds=5")
        yield benchmark("mog25", f"mixture_{batch}", peak, *flags)
    yield benchmark("checkpoint", "checkpoint", _config("cifar10_ddgan"))
    yield benchmark("startup", "startup", _config("digits_ddgan"), "--repeats=3")


def _mixture(out: Path) -> Iterator[Piece]:
    # A cell at a time: those that the folder holds are not trained again.
    for method in ("gan", "ddgan", "siddm", "siddm_no_afd"):
        for steps in (1,) if method == "gan" else (2, 4, 8, 16):
            argv = (
                *(sys.executable, "-m", "ddgan_jax", "experiment", "mog25"),
                *(f"--methods={method}", f"--steps={steps}", "--seeds=0-4"),
                *("--setting=paper", f"--out={out / 'mog25'}"),
            )
            yield Piece(f"mog25_{method}_{steps}", argv)


def _cifar10(out: Path, runs: Path, data: str, steps: int) -> Iterator[Piece]:
    config = "cifar10_ddgan"
    overhead = (_config(config), f"--config.data.dir={data}")
    fast = ("--config.train.compute_dtype=bfloat16", "--config.train.batch_size=64")
    argv = (sys.executable, "-m", "benchmarks.overhead", *overhead, *fast)
    yield Piece("gpu_overhead", argv, "gpu_overhead.json")
    argv = (sys.executable, "-m", "benchmarks.input_pipeline", *overhead)
    yield Piece("gpu_pipeline", argv, "gpu_pipeline.json")
    yield from _training(out, runs, config, steps, data)


def _training(
    out: Path, runs: Path, config: str, steps: int, data: str, dtype: str = "bfloat16"
) -> Iterator[Piece]:
    """Yield a run with a shortened schedule; each quarter ends with numbers and a grid."""
    workdir = runs / config
    settings = (
        *(f"--config.train.compute_dtype={dtype}", f"--config.data.dir={data}"),
        *("--config.checkpoint.save_every_steps=1000", "--config.log.samples_every_steps=1000"),
    )
    if load_config(f"configs/{config}.py").optimizer.decay_steps:
        # The cosine must end with the shortened run, and not beyond it.
        settings += (f"--config.optimizer.decay_steps={steps}",)
    ddgan = (sys.executable, "-m", "ddgan_jax")
    # Each quarter is a command of its own, which goes on from the last checkpoint.
    for quarter in (1, 2, 3, 4):
        done = steps * quarter // 4
        name = f"{config}_{done}"
        train = (*ddgan, "train", _config(config), f"--workdir={workdir}", *settings)
        yield Piece(f"train_{name}", (*train, f"--config.train.num_steps={done}"))
        evaluate = (*ddgan, "evaluate", f"--workdir={workdir}", *_EVALUATIONS[config])
        evaluate += (f"--data_dir={data}",) if data else ()
        yield Piece(f"evaluate_{name}", (*evaluate, f"--out={out / name}.json"))
        sample = (*ddgan, "sample", f"--workdir={workdir}", "--seeds=0-99")
        yield Piece(f"grid_{name}", (*sample, f"--out={out / name}.png"))
    copy = ("cp", str(workdir / "metrics.jsonl"), str(out / f"{config}_metrics.jsonl"))
    yield Piece(f"metrics_{config}", copy)


def run(piece: Piece, out: Path, seconds: float) -> bool:
    """Run a piece for at most `seconds`; return whether it is finished, and never done again.

    Raises UserError if it fails.
    """
    log = (out / f"{piece.name}.log").open("a")
    # A report is held back until it is whole: a piece that is cut off leaves no half of one.
    stdout = subprocess.PIPE if piece.report else log
    with log, subprocess.Popen(piece.argv, stdout=stdout, stderr=log, text=True) as process:
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # A training run saves a checkpoint upon SIGTERM, from which the next call goes on.
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            return False
    if process.returncode == STOPPED:
        return False
    if process.returncode:
        raise UserError(f"{piece.name} ended with {process.returncode}: see {log.name}")
    if piece.report:
        # Output that is no JSON raises here, and the piece is not marked as done.
        json.loads(printed)
        (out / piece.report).write_text(printed)
    (out / f"{piece.name}.done").write_text(shlex.join(piece.argv) + "\n")
    return True


def session(left: Sequence[Piece], out: Path, budget: float) -> int:
    """Do pieces until the budget is used up; return how many are left."""
    end = time.monotonic() + budget
    failures = []
    remaining = list(left)
    for piece in left:
        seconds = end - time.monotonic()
        if seconds < LEAST:
            break
        print(f"{piece.name}: {shlex.join(piece.argv)}", flush=True)
        try:
            if not run(piece, out, seconds):
                break
        # One piece that cannot run is no reason to leave the others.
        except UserError as error:
            failures.append(str(error))
            continue
        remaining.remove(piece)
    for failure in failures:
        print(failure)
    return len(remaining)


def main() -> int:
    """Do the next pieces, and print how many are left."""
    values, _ = parse_flags("python -m benchmarks.gpu_session", FLAGS, sys.argv[1:])
    out, runs = Path(values.out), Path(values.runs)
    if set(values.parts) - set("abcde") or not values.steps.isdecimal():
        raise UserError(f"--parts={values.parts} --steps={values.steps}: parts are letters a to e")
    todo = pieces(values.parts, out, runs, values.data, int(values.steps))
    left = [piece for piece in todo if not (out / f"{piece.name}.done").exists()]
    if values.dry_run:
        for piece in left:
            into = f" > {out / piece.report}" if piece.report else ""
            print(f"{piece.name}: {shlex.join(piece.argv)}{into}")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    count = session(left, out, values.budget)
    print(f"{count} pieces left: run the same command again" if count else "nothing is left")
    return 0


if __name__ == "__main__":
    sys.exit(command.exit_code("gpu_session", main))
