"""Read everything that a run folder holds for its page, whatever state the run is in.

A run may go on, may have been killed, or may have just begun. Whatever is missing is empty here.
Damaged files, and damaged lines of logs, are left out and named. Nothing on disk changes.
"""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from ddgan_jax.config import ConfigDict, run_config
from ddgan_jax.errors import UserError, shown
from ddgan_jax.evaluation import results
from ddgan_jax.evaluation.results import Result
from ddgan_jax.files.foreign import reading
from ddgan_jax.files.paths import entries, run_folder_path
from ddgan_jax.files.run_folder import CONFIG, SPEED, MetricsLine, RunFolder, Start

# Result files that are read.
MOST_EVALUATIONS = 100
# Images per second; less is no speed, and would make the time of training endless.
SLOWEST = 1e-6


class Run(NamedTuple):
    """The content of a run folder.

    lines: from metrics.jsonl, one for each step, in order. evaluations: result files by name.
    starts: from machine.jsonl. grids, trajectories: picture files by step, in order. best: step of
    the checkpoint that is kept for its numbers. left_out: messages about what could not be read.
    """

    name: str
    config: ConfigDict
    lines: Sequence[MetricsLine]
    evaluations: Mapping[str, Result]
    starts: Sequence[Start]
    grids: Mapping[int, epath.Path]
    trajectories: Mapping[int, epath.Path]
    best: int | None
    left_out: Sequence[str]

    @property
    def step(self) -> int:
        """Return the last step that something was logged or drawn at, 0 for none."""
        # A grid may be newer than the last line, since both have intervals of their own.
        return max([line.step for line in self.lines[-1:]] + [*self.grids, 0])


def find(workdir: str | os.PathLike) -> RunFolder:
    """Return the run folder that a person named. Raises UserError if there is none."""
    path = run_folder_path(workdir)
    folder = RunFolder(path)
    with reading(path, "run folder"):
        if not path.is_dir():
            raise UserError(f"there is no folder {shown(path, 300)}")
        if not folder.config.exists():
            raise UserError(
                f"{shown(path, 300)} is no run folder of `ddgan train`: it has no {CONFIG}"
            )
    return folder


def read(workdir: str | os.PathLike) -> Run:
    """Return the run of a folder. Raises UserError if there is none, or its config is damaged."""
    folder = find(workdir)
    path = folder.path
    left_out: list[str] = []

    # The page may go to other people: where the folder lies is nobody else's business.
    def report(line: str) -> None:
        left_out.append(line.replace(f"{path}/", ""))

    return Run(
        name=os.path.basename(os.path.abspath(path)),
        config=run_config.read_config(folder, report=report),
        lines=_by_step(folder.read_metrics(report=report)),
        evaluations=dict(_evaluations(folder, report)),
        starts=folder.read_starts(report=report),
        grids=folder.grids(),
        trajectories=folder.trajectories(),
        best=max(folder.best.checkpoint_folders(), default=None),
        left_out=left_out,
    )


def training_seconds(lines: Sequence[MetricsLine], batch_size: int) -> float:
    """Return the time spent on the steps of the lines, pauses between processes left out.

    A line's speed is that since the line before it, in the same process. The first line of a
    process has none, since its steps are compiled: they count at the median pace.
    """
    speeds = [line.metrics.get(SPEED, 0) for line in lines]
    paces = [batch_size / speed if speed > SLOWEST else None for speed in speeds]
    known = [pace for pace in paces if pace is not None]
    if not known:
        return 0.0
    # Pauses show in the times of the lines, and not in the pace since the line before.
    usual, total, before = statistics.median(known), 0.0, 0
    for line, pace in zip(lines, paces, strict=True):
        total += (line.step - before) * (usual if pace is None else pace)
        before = line.step
    return total


def _evaluations(folder: RunFolder, report: Callable[[str], None]) -> Iterable[tuple[str, Result]]:
    files = entries(folder.evaluations, after=".json")
    for path in files[:MOST_EVALUATIONS]:
        try:
            yield path.name.removesuffix(".json"), results.read(path)
        except UserError as error:
            report(f"skipped an evaluation: {error}")
    if len(files) > MOST_EVALUATIONS:
        report(f"skipped the last {len(files) - MOST_EVALUATIONS:,} of {len(files):,} evaluations")


def _by_step(lines: Sequence[MetricsLine]) -> list[MetricsLine]:
    """Return one line for each step, with all that was written of it and the last time."""
    # A step may have several lines, as from its training and from its evaluation.
    merged: dict[int, MetricsLine] = {}
    for line in lines:
        before = merged.get(line.step)
        if before is not None:
            time = before.time if line.time is None else line.time
            line = MetricsLine(line.step, time, {**before.metrics, **line.metrics})
        merged[line.step] = line
    return [merged[step] for step in sorted(merged)]
