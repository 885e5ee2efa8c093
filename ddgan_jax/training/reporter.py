"""What a run tells: its config, its metrics in files, its progress on the terminal."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
from etils import epath
from tqdm import tqdm

from ddgan_jax.config import ConfigDict
from ddgan_jax.config.files import from_json, leaves, to_json
from ddgan_jax.errors import UserError
from ddgan_jax.files import foreign, run_logs
from ddgan_jax.files.atomic import append_line, write_atomically, write_errors
from ddgan_jax.files.paths import is_bucket
from ddgan_jax.files.progress import Pace, duration
from ddgan_jax.images import write_png
from ddgan_jax.training.event_files import SummaryWriter, metric_writers

# Fields, and with a dot at the end groups of fields, that may differ when a run goes on. They say
# how far it goes, what it leaves behind, and where its data lies or how it is read: none changes
# what a step computes.
MAY_CHANGE = (
    "train.num_steps",
    "train.shard_optimizer",
    "log.",
    "checkpoint.",
    "eval.",
    "sampling.",
    "data.dir",
    "data.memory_limit_mib",
    "data.decode_threads",
)


# Metrics that only the files tell: they change slowly or not at all.
_QUIET = ("ema_distance", "g_learning_rate", "d_learning_rate")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


# ------------------------------------------------------------------------- config of the run


def check_same_run(
    run_dir: str | os.PathLike, config: ConfigDict, *, report: run_logs.Report = _say
) -> None:
    """Refuse a folder that holds a run of another config.

    Fields of MAY_CHANGE may differ. A folder without config.json is a new run. report: takes a line
    about a damaged one. Raises UserError with the differing fields.
    """
    if not (epath.Path(run_dir) / run_logs.CONFIG).exists():
        return
    stored = run_logs.read_config(run_dir, report=report)
    # The way through JSON makes lists and tuples equal.
    here, there = dict(leaves(from_json(to_json(config)))), dict(leaves(stored))
    differing = [
        f"{name}: {there.get(name, 'absent')!r} in the run folder, {here.get(name, 'absent')!r} now"
        for name in sorted(there | here)
        if not name.startswith(MAY_CHANGE) and there.get(name) != here.get(name)
    ]
    if differing:
        raise UserError(
            f"{run_dir} is a run of another config ({'; '.join(differing)}): "
            "name another run folder, or take these values back"
        )


def write_config(run_dir: str | os.PathLike, config: ConfigDict) -> None:
    """Write config.json into the run folder, made if missing. To be called by one process.

    Raises UserError if the folder holds a run of another config, or cannot be written.
    """
    check_same_run(run_dir, config, report=lambda _: None)  # what is damaged is replaced now
    write_atomically(epath.Path(run_dir) / run_logs.CONFIG, to_json(config).encode())


# -------------------------------------------------------------------------- metrics in files


def check_finite(metrics: Mapping[int, Mapping[str, float]]) -> None:
    """Raises UserError for the first step, if any, of which a metric is not finite.

    metrics: of steps in ascending order. A gradient's norm is one of them.
    """
    for step, values in metrics.items():
        bad = [f"{name} is {value:g}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"step {step}: {', '.join(bad)}; the checkpoints so far are untouched; lower "
                "learning rates or train.compute_dtype=float32 may help"
            )


class JsonLines:
    """metrics.jsonl: one JSON object a line, with step, time (UNIX seconds) and the metrics.

    Has the methods of clu's metric writers that this program calls.
    """

    def __init__(self, path: str | os.PathLike, first_step: int):
        """Drop what the file says of `first_step` and later, which is about to be done again."""
        self._path = epath.Path(path)
        before = foreign.read_bytes(path, "log") if self._path.exists() else b""
        kept = run_logs.kept_lines(path, first_step, report=_say)
        content = b"".join(line + b"\n" for line in kept)
        if content != before:
            write_atomically(self._path, content)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends a line. The file is closed between lines: none is lost by a kill."""
        line = {"step": step, "time": round(time.time(), 3)} | dict(scalars)
        append_line(self._path, json.dumps(line, allow_nan=False))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Nothing: images have files of their own."""

    def flush(self) -> None:
        """Nothing: each line is written at once."""

    def close(self) -> None:
        """Nothing: no file is open between lines."""


def metric_at(run_dir: str | os.PathLike, name: str, step: int | None) -> float | None:
    """Return the number of that name in the line of `step`; None if there is none."""
    lines = run_logs.read_metrics(run_dir, report=_say)
    found = [line.metrics for line in lines if line.step == step]
    return found[-1].get(name) if found else None


# -------------------------------------------------------------------- progress on the terminal


class Reporter(AbstractContextManager):
    """A run's metrics and grids into its folder, and its progress to stdout.

    A bar that stays on one line if stdout is a terminal, a line per call of `metrics` otherwise.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike,
        *,
        steps_done: int,
        num_steps: int,
        batch_size: int,
        active: bool = True,
    ):
        """steps_done: where the run begins or goes on; what the folder tells of later steps goes.

        num_steps: at which the run ends. batch_size: images per step. active: False on all
        processes but one, which write and print nothing. Raises UserError if files cannot be
        written, as the methods do.
        """
        self._run_dir = epath.Path(run_dir)
        self._active = active
        writers = []
        if active:
            with write_errors(run_dir):
                self._run_dir.mkdir(parents=True, exist_ok=True)
                writers = [JsonLines(self._run_dir / "metrics.jsonl", steps_done + 1)]
                if not is_bucket(run_dir):  # event files grow, and objects do not
                    writers.append(SummaryWriter(os.fspath(self._run_dir), steps_done + 1))
        self._writer = metric_writers.MultiWriter(writers)
        self._pace = Pace(num_steps, batch_size)
        self._bar = tqdm(
            total=num_steps,
            initial=steps_done,
            file=sys.stdout,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}{postfix}",
            disable=not (active and sys.stdout.isatty()),
        )

    def step(self, step: int) -> None:
        """Moves the bar to `step`; to be called after each."""
        self._bar.update(step - self._bar.n)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes and shows the finite scalars `metrics` of `step`, which must be done by now.

        Adds images_per_second: all that happened since the last call counts, grids included.
        """
        scalars = {name: float(value) for name, value in metrics.items()}
        shown = [f"{name} {value:.3g}" for name, value in scalars.items() if name not in _QUIET]
        pace = self._pace.mark(step, time.monotonic())
        if pace:
            scalars["images_per_second"], seconds_left = pace
            speed = f"{pace[0]:,.0f}" if pace[0] >= 100 else f"{pace[0]:.3g}"
            shown += [f"{speed} images/s", f"{duration(seconds_left)} left"]
        with write_errors(self._run_dir):
            self._writer.write_scalars(step, scalars)
            self._writer.flush()
        if self._bar.disable:
            self.message("  ".join([f"step {step}/{self._bar.total}", *shown]))
        else:
            self._bar.set_postfix_str("  ".join(shown))

    def samples(self, step: int, grid: np.ndarray) -> None:
        """Writes a uint8 grid (H, W, C) to samples/step_<step>.png and to the event files."""
        self._picture(step, "step", "samples", grid)

    def trajectory(self, step: int, grid: np.ndarray) -> None:
        """Likewise samples/trajectory_<step>.png."""
        self._picture(step, "trajectory", "trajectory", grid)

    def _picture(self, step: int, stem: str, tag: str, grid: np.ndarray) -> None:
        if self._active:
            write_png(self._run_dir / "samples" / f"{stem}_{step}.png", grid)
            with write_errors(self._run_dir):
                self._writer.write_images(step, {tag: grid})

    def message(self, text: str) -> None:
        """Prints a line; a bar stays below it."""
        if self._active:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self, *exception: object) -> None:
        """Ends the bar and closes the files; leaving the context does the same."""
        self._bar.close()
        with write_errors(self._run_dir):
            self._writer.close()

    __exit__ = close
