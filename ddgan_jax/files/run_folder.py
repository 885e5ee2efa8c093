"""Name the files of a run folder and read their lines, which no other module does.

    config.json         the config of the run
    metrics.jsonl       a line for each logged step
    machine.jsonl       a line for each start: devices, versions, data set
    origin.json         where an imported run comes from
    samples/            step_N.png, a grid of images; trajectory_N.png, their denoising steps
    checkpoints/N/      see `checkpoint`
    best/               the best checkpoint so far: a run folder with a config and checkpoints
    evaluations/        results of `ddgan evaluate`: see `evaluation.results`
    report.html         the page of `ddgan report`
    interval.json       of a run that was stopped: what the next line of metrics averages
    trackers.json       under which names trackers such as W&B know the run
    events.out.*        the metrics and grids for TensorBoard, which names these files
    wandb/              W&B's own files
    profile/            traces of `ddgan train --profile`
    jax_cache/          compiled programs, of a run in a bucket
    .lock               locked by the process that writes the run

A run may have been killed, copied or edited since it was written. Its logs therefore never block
anybody: a line that cannot be read is left out and named once, and reading changes nothing on disk.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from etils import epath

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign, locks
from ddgan_jax.files.atomic import append_line, write_atomically
from ddgan_jax.files.paths import entries
from ddgan_jax.files.run_records import (
    MOST_STEPS,
    Interval,
    MetricsLine,
    Origin,
    Start,
    TrackerId,
    metrics_line,
)

CONFIG = "config.json"
METRICS = "metrics.jsonl"
MACHINES = "machine.jsonl"
ORIGIN = "origin.json"
INTERVAL = "interval.json"
TRACKERS = "trackers.json"
SPEED = "images_per_second"  # a metric: of the steps since the line before it

T = TypeVar("T")
Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of a run, by its path; nothing is looked at or made until a method is called.

    Methods that read a log take `report`, which gets one line about what they left out.
    """

    path: epath.Path

    @classmethod
    def at(cls, path: str | os.PathLike) -> "RunFolder":
        """Return the run folder at a path that is used as it stands; see `run_folder_path`."""
        return cls(epath.Path(path))

    # -------------------------------------------------------------------------------- places

    @property
    def config(self) -> epath.Path:
        """Return the file with the config."""
        return self.path / CONFIG

    @property
    def checkpoints(self) -> epath.Path:
        """Return the folder with the checkpoints, one folder for each step."""
        return self.path / "checkpoints"

    @property
    def best(self) -> "RunFolder":
        """Return the run folder inside this one that keeps the best checkpoint."""
        return RunFolder(self.path / "best")

    @property
    def evaluations(self) -> epath.Path:
        """Return the folder with the results of `ddgan evaluate`."""
        return self.path / "evaluations"

    @property
    def report(self) -> epath.Path:
        """Return the file of the run's page."""
        return self.path / "report.html"

    @property
    def compiled_programs(self) -> epath.Path:
        """Return the folder for JAX's compiled programs, used where the run lies in a bucket."""
        return self.path / "jax_cache"

    @property
    def profile(self) -> epath.Path:
        """Return the folder for traces of steps."""
        return self.path / "profile"

    def grid(self, step: int) -> epath.Path:
        """Return the file with the grid of images that was drawn after `step`."""
        return self.path / "samples" / f"step_{step}.png"

    def trajectory(self, step: int) -> epath.Path:
        """Return the file with the denoising steps of a few images that were drawn after `step`."""
        return self.path / "samples" / f"trajectory_{step}.png"

    def grids(self) -> dict[int, epath.Path]:
        """Return the grids that are there by step, in the order of the steps."""
        return _numbered(self.path / "samples", "step_", ".png")

    def trajectories(self) -> dict[int, epath.Path]:
        """Return the pictures of denoising steps that are there by step, in their order."""
        return _numbered(self.path / "samples", "trajectory_", ".png")

    def checkpoint_folders(self) -> dict[int, epath.Path]:
        """Return the folders of checkpoints, whole or not, by step, in the order of the steps."""
        return _numbered(self.checkpoints)

    # --------------------------------------------------------------------------------- locks

    def only_writer(self) -> contextlib.AbstractContextManager[None]:
        """Make the folder and hold it against a second process, as `locks.only_writer` does."""
        return locks.only_writer(self.path, lock=self._lock)

    def is_being_written(self) -> bool:
        """Return whether another process writes the run; False where nobody can tell."""
        return locks.is_held(self._lock)

    @property
    def _lock(self) -> epath.Path:
        return self.path / ".lock"

    # -------------------------------------------------------------------------------- config

    def read_config(self, parse: Callable[[str], T], *, report: Report) -> T:
        """Return the config; where config.json is damaged, that of the newest checkpoint.

        parse: makes a config of JSON text, or raises UserError. Raises UserError if neither can be
        read.
        """
        try:
            return _read_config(self.config, parse)
        except UserError as error:
            kept = self._config_of_newest_checkpoint(parse) if self.config.exists() else None
            if kept is None:
                raise
            report(f"{error}; took the config of the newest checkpoint instead")
            return kept

    def _config_of_newest_checkpoint(self, parse: Callable[[str], T]) -> T | None:
        # Each checkpoint has a copy of the config. The newest one may be damaged as well.
        for folder in reversed(self.checkpoint_folders().values()):
            with contextlib.suppress(UserError):
                return _read_config(folder / "config" / "metadata", parse)  # Orbax's name for JSON
        return None

    def write_config(self, text: str) -> None:
        """Write config.json, in place of what was there; make the folder if it is missing.

        Raises UserError if it cannot be written.
        """
        write_atomically(self.config, text.encode())

    # ------------------------------------------------------------------------------- metrics

    def read_metrics(self, *, report: Report) -> list[MetricsLine]:
        """Return the lines of metrics.jsonl in their order; a repeated step has several.

        Values that are not numbers, or that are beyond LARGEST_NUMBER, are left out of their line.
        """
        return foreign.read_log(self.path / METRICS, make=metrics_line, report=report)

    def drop_metrics_from(self, step: int, *, report: Report) -> None:
        """Remove the lines of metrics.jsonl of `step` and later, and lines that cannot be read.

        The other lines stay byte for byte. Raises UserError if something is there that is no log,
        or if it cannot be written.
        """
        path = self.path / METRICS
        if not path.exists():
            return
        content = foreign.read_bytes(path, "log")
        lines = foreign.log_lines(content, make=metrics_line, source=path, report=report)
        kept = b"".join(line + b"\n" for line, found in lines if found.step < step)
        # Usually nothing changes, and then nothing needs to be written.
        if kept != content:
            write_atomically(path, kept)

    def append_metrics(self, *lines: MetricsLine) -> None:
        """Append lines of finite numbers to metrics.jsonl. Raises OSError.

        The file is closed then, so that a kill loses none of them.
        """
        texts = (
            json.dumps({"step": step, "time": time} | dict(metrics), allow_nan=False)
            for step, time, metrics in lines
        )
        append_line(self.path / METRICS, "\n".join(texts))

    def write_interval(self, interval: Interval) -> None:
        """Keep the sums of an interval that the next process ends. Raises UserError."""
        write_atomically(self.path / INTERVAL, msgspec.json.encode(interval))

    def read_interval(self, step: int, *, report: Report) -> Interval | None:
        """Return the sums that were kept when the run stopped at `step`; None if it did not.

        None also for a damaged file, which `report` then names.
        """
        interval = foreign.read_if_whole(self.path / INTERVAL, Interval, report=report)
        return interval if interval and interval.after <= interval.step == step else None

    # ------------------------------------------------------------------------------ trackers

    def read_trackers(self, *, report: Report) -> dict[str, TrackerId]:
        """Return under which name each tracker knows the run, {} if none does.

        {} also for a damaged file, which `report` then names.
        """
        return (
            foreign.read_if_whole(self.path / TRACKERS, dict[str, TrackerId], report=report) or {}
        )

    def write_trackers(self, names: Mapping[str, str]) -> None:
        """Keep what `read_trackers` returns. Raises UserError."""
        write_atomically(self.path / TRACKERS, msgspec.json.encode(dict(names)))

    # ---------------------------------------------------------------------- starts and origin

    def read_starts(self, *, report: Report) -> list[Start]:
        """Return the lines of machine.jsonl, one for each time that the run started or resumed."""
        return foreign.read_log(self.path / MACHINES, Start, report=report)

    def append_start(self, start: Mapping[str, Any]) -> None:
        """Append a line to machine.jsonl with the fields of `Start`, and more. Raises OSError."""
        append_line(self.path / MACHINES, json.dumps(start))

    def read_origin(self, *, report: Report) -> Origin:
        """Return where a run comes from; an empty Origin for one that `ddgan train` began.

        It is also empty for a damaged file, which `report` then names.
        """
        return foreign.read_if_whole(self.path / ORIGIN, Origin, report=report) or Origin()

    def write_origin(self, origin: Mapping[str, Any]) -> None:
        """Write origin.json with the fields of `Origin`, and more. Raises OSError."""
        (self.path / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")


def _read_config(path: epath.Path, parse: Callable[[str], T]) -> T:
    content = foreign.read_bytes(path, "config", most=foreign.LARGEST_JSON)
    with foreign.reading(path, "config in JSON"):
        text = content.decode()
    try:
        return parse(text)
    except UserError as error:
        raise UserError(f"{shown(path, 300)}: {error}") from error


def _numbered(folder: epath.Path, before: str = "", after: str = "") -> dict[int, epath.Path]:
    """Return the files in a folder whose names hold a step between `before` and `after`."""
    found = {}
    for path in entries(folder, before, after):
        number = path.name.removeprefix(before).removesuffix(after)
        if number.isascii() and number.isdecimal() and len(number) <= len(str(MOST_STEPS)):
            found[int(number)] = path
    return dict(sorted(found.items()))
