"""What a run folder tells beside its checkpoints, read as it is.

    config.json     the config of the run
    metrics.jsonl   a line for each logged step
    machine.jsonl   a line for each start: devices and versions
    origin.json     where an imported run comes from
    evaluations/    results of `ddgan evaluate`: see `evaluation.results`

A run may have been killed, copied or edited since. Its logs therefore never block anybody: what is
no line of them is left out and named once, and nothing on disk changes.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from etils import epath

from ddgan_jax.config import LARGEST, ConfigDict, from_stored
from ddgan_jax.config.files import from_json
from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files import foreign
from ddgan_jax.files.paths import entries

CONFIG = "config.json"
METRICS = "metrics.jsonl"
MACHINES = "machine.jsonl"
ORIGIN = "origin.json"
EVALUATIONS = "evaluations"
SPEED = "images_per_second"  # in a line of metrics; that of the steps since the line before it

LARGEST_ORIGIN = 2**20  # bytes
LONGEST_NAME = 200  # characters of the name of a metric
LARGEST_NUMBER = 1e300  # sums and differences of such are finite, too
YEAR_10000 = 253_402_300_800  # UNIX seconds, from which on no calendar names a day

Report = Callable[[str], None]
Step = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Time = Annotated[float, msgspec.Meta(ge=0, lt=YEAR_10000)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class MetricsLine(NamedTuple):
    """What was logged of a step. time: UNIX seconds, None if it is not known. metrics: finite."""

    step: int
    time: float | None
    metrics: Mapping[str, float]


class Start(msgspec.Struct):
    """A line of machine.jsonl. step: train steps done before it. time: UNIX seconds.

    data: the fingerprint of the data set; lines of older versions have none.
    """

    step: Step
    time: Time | None = None
    devices: Count | None = None
    device_kind: str = "unknown"
    platform: str = ""
    processes: Count | None = None
    cores: Count | None = None  # of the first process's host
    data: str = ""
    jax: str = ""
    ddgan_jax: str = ""


class Origin(msgspec.Struct):
    """Where the first checkpoint of an imported run comes from, what JSON can hold."""

    provenance: dict[str, Any] = {}
    licence: str = ""


def read_config(run_dir: str | os.PathLike, *, report: Report) -> ConfigDict:
    """Return the config of a run; where config.json is damaged, that of its newest checkpoint.

    The second is named to `report`. Raises UserError if there is neither.
    """
    path = epath.Path(run_dir) / CONFIG
    try:
        return _read_config(path)
    except UserError as error:
        kept = _config_of_newest_checkpoint(epath.Path(run_dir)) if path.exists() else None
        if kept is None:
            raise
        report(f"{error}; took the config of the newest checkpoint instead")
        return kept


def _read_config(path: epath.Path) -> ConfigDict:
    content = foreign.read_bytes(path, "config", most=foreign.LARGEST_JSON)
    with foreign.reading(path, "config in JSON"):
        text = content.decode()
    try:
        return from_stored(from_json(text).to_dict())
    except UserError as error:
        raise UserError(f"{shown(path, 300)}: {error}") from error


def _config_of_newest_checkpoint(run_dir: epath.Path) -> ConfigDict | None:
    folders = [path for path in entries(run_dir / "checkpoints") if path.name.isdecimal()]
    for folder in sorted(folders, key=lambda path: int(path.name), reverse=True):
        with contextlib.suppress(UserError):
            return _read_config(folder / "config" / "metadata")  # as Orbax writes JSON
    return None


def read_metrics(run_dir: str | os.PathLike, *, report: Report) -> list[MetricsLine]:
    """Return the lines of metrics.jsonl in their order; a step that was repeated has several.

    What is no number in a line, or one of 300 digits, is no metric and left out of it.
    """
    path = epath.Path(run_dir) / METRICS
    return foreign.read_log(path, make=_metrics_line, report=report)


def metrics_at(run_dir: str | os.PathLike, step: int, *, report: Report) -> MetricsLine | None:
    """Return the last line of metrics.jsonl that is of `step` or earlier; None if none is."""
    lines = read_metrics(run_dir, report=report)
    return next((line for line in reversed(lines) if line.step <= step), None)


def kept_lines(path: str | os.PathLike, before_step: int, *, report: Report) -> list[bytes]:
    """Return the lines of metrics.jsonl as they stand there, of steps before `before_step`.

    Torn lines are left out and named. Raises UserError if something is there that is no log.
    """
    if not epath.Path(path).exists():
        return []
    content = foreign.read_bytes(path, "log")
    lines = foreign.log_lines(content, make=_metrics_line, source=path, report=report)
    return [line for line, found in lines if found.step < before_step]


def read_starts(run_dir: str | os.PathLike, *, report: Report) -> list[Start]:
    """Return the lines of machine.jsonl: on what a run started or went on."""
    return foreign.read_log(epath.Path(run_dir) / MACHINES, Start, report=report)


def read_origin(run_dir: str | os.PathLike, *, report: Report) -> Origin:
    """Return where a run comes from; an empty Origin for one that `ddgan train` began.

    For a damaged file, which `report` then names, it is empty too.
    """
    path = epath.Path(run_dir) / ORIGIN
    try:
        if not path.exists():
            return Origin()
        content = foreign.read_bytes(path, "JSON file", most=LARGEST_ORIGIN)
        return foreign.decode_json(content, Origin, source=path)
    except (UserError, OSError) as error:
        report(f"went on without the origin of the run: {reason(error)}")
        return Origin()


def _metrics_line(values: dict[str, Any]) -> MetricsLine:
    step, time = values.pop("step", None), _number(values.pop("time", None))
    if type(step) is not int or not 0 <= step <= LARGEST:
        raise UserError("it has no step")
    if time is not None and not 0 <= time < YEAR_10000:
        time = None
    numbers = (
        (name, _number(value)) for name, value in values.items() if len(name) <= LONGEST_NAME
    )
    return MetricsLine(step, time, {name: value for name, value in numbers if value is not None})


def _number(value: Any) -> float | None:
    """Return a number as a float, and None for everything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -LARGEST_NUMBER <= value <= LARGEST_NUMBER else None
