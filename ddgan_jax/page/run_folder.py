"""What a run folder tells, read as it is: of a run that goes on, was killed, or has just begun.

Whatever may be missing is empty here, and a line that a kill has torn is left out; nothing on disk
changes.
"""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from etils import epath

from ddgan_jax.config import ConfigDict, from_stored
from ddgan_jax.config_files import from_json
from ddgan_jax.errors import UserError

SPEED = "images_per_second"


class Run(NamedTuple):
    """A run folder. lines: of metrics.jsonl, one for each step, in order.

    evaluations: by file name, None for one that cannot be read. starts: of machine.jsonl. grids,
    trajectories: files by step, in order. best: step of the checkpoint kept for its numbers.
    """

    name: str
    config: ConfigDict
    lines: Sequence[Mapping[str, float]]
    evaluations: Mapping[str, Mapping[str, Any] | None]
    starts: Sequence[Mapping[str, Any]]
    grids: Mapping[int, epath.Path]
    trajectories: Mapping[int, epath.Path]
    best: int | None

    @property
    def step(self) -> int:
        """The last one of which the folder tells, 0 if none."""
        return max([int(line["step"]) for line in self.lines[-1:]] + [*self.grids, 0])


def read(workdir: str | os.PathLike) -> Run:
    """The run of a folder. Raises UserError if there is none."""
    folder = epath.Path(workdir)
    if not folder.is_dir():
        raise UserError(f"there is no folder {workdir}")
    if not (folder / "config.json").exists():
        raise UserError(f"{workdir} is no run folder of `ddgan train`: it has no config.json")
    try:
        config = from_stored(from_json((folder / "config.json").read_text()).to_dict())
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error
    evaluations = sorted((folder / "evaluations").glob("*.json"), key=lambda path: path.name)
    return Run(
        name=os.path.basename(os.path.abspath(workdir)),
        config=config,
        lines=_by_step(_json_lines(folder / "metrics.jsonl")),
        evaluations={path.stem: _json_object(path.read_text()) for path in evaluations},
        starts=_json_lines(folder / "machine.jsonl"),
        grids=_numbered(folder / "samples", "step_", ".png"),
        trajectories=_numbered(folder / "samples", "trajectory_", ".png"),
        best=max(_numbered(folder / "best" / "checkpoints"), default=None),
    )


def training_seconds(lines: Sequence[Mapping[str, float]], batch_size: int) -> float:
    """Time spent on the steps of the lines, pauses between processes left out.

    A line's speed is that since the line before it, in the same process. The first line of a
    process has none, since its steps are compiled: they count at the median pace.
    """
    paces = [batch_size / line[SPEED] for line in lines if line.get(SPEED)]
    if not paces:
        return 0.0
    usual, total, before = statistics.median(paces), 0.0, 0.0
    for line in lines:
        pace = batch_size / line[SPEED] if line.get(SPEED) else usual
        total += (line["step"] - before) * pace
        before = line["step"]
    return total


def _numbered(folder: epath.Path, before: str = "", after: str = "") -> dict[int, epath.Path]:
    """What a folder holds under names with a number between `before` and `after`, in its order."""
    found = {
        int(number): path
        for path in folder.glob(f"{before}*{after}")
        if (number := path.name.removeprefix(before).removesuffix(after)).isdecimal()
    }
    return dict(sorted(found.items()))


def _json_lines(path: epath.Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    found = (_json_object(line) for line in lines)
    return [line for line in found if line and isinstance(line.get("step"), int | float)]


def _by_step(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """One line for each step, with all that was written of it; what is no number is left out."""
    merged: dict[int, dict[str, float]] = {}
    for line in lines:
        numbers = {k: v for k, v in line.items() if isinstance(v, int | float) and isfinite(v)}
        merged.setdefault(line["step"], {}).update(numbers)
    return [merged[step] for step in sorted(merged)]


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
