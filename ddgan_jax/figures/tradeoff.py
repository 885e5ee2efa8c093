"""Quality against sampling time, from the result files of `ddgan evaluate`.

Numbers stand in one plot only if they mean the same: the same metric, features, reference and
number of samples. The published points are those that the DDGAN paper (Xiao et al. 2022) gives for
CIFAR-10: 50,000 samples, 100 images at a time on one V100.
"""

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddgan_jax.errors import UserError
from ddgan_jax.evaluation.scoring import HIGHER_IS_BETTER
from ddgan_jax.figures.charts import Series, scatter_chart

# Fields of a result that decide what its numbers mean; of features all do. Where statistics lie,
# and which run was scored, do not.
COMPARED = {"reference": ("dataset", "count", "preprocessing"), "samples": ("count",)}
WIDE = 3  # ratio of the largest to the smallest number from which their axis is logarithmic too
NAMES = {"fid": "FID", "is": "Inception Score", "kid": "KID"}


class Result(NamedTuple):
    """One result file. comparable: what must be equal in all that stand in one plot."""

    source: str
    name: str  # of the run, and its denoising steps
    train_step: int | None
    seconds: float  # for 100 images
    value: float
    device: str
    comparable: Mapping[str, Any]


class Published(NamedTuple):
    """A point of the paper: seconds for 100 images, FID."""

    name: str
    seconds: float
    fid: float


PUBLISHED = (
    Published("DDGAN, 4 steps", 0.21, 3.75),
    Published("DDPM, 1000 steps", 80.5, 3.21),
    Published("DDIM, 50 steps", 4.01, 4.67),
    Published("Score SDE (VP), 2000 steps", 421.5, 2.41),
    Published("StyleGAN2 with ADA", 0.04, 2.92),
)
OF_THE_PAPER = {"features.protocol": "pytorch_fid", "samples.count": 50_000}


def find(patterns: str) -> list[Path]:
    """The files of "a.json,runs/x"; of folders, those in them, of run folders their evaluations.

    Raises UserError for a part that names nothing.
    """
    found: list[Path] = []
    for pattern in patterns.split(","):
        paths = [Path(path) for path in sorted(glob.glob(pattern))]
        paths = [p / "evaluations" if (p / "evaluations").is_dir() else p for p in paths]
        files = [f for p in paths for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])]
        if not files:
            raise UserError(f"--results: there is no result file at {pattern!r}")
        found += files
    return found


def read(path: Path, metric: str) -> Result:
    """One result file. Raises UserError if it is none, or lacks the metric or the sampling time."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        raise UserError(f"{path} cannot be read: {reason}") from error
    metrics = _part(content, "metrics")
    if not metrics:
        raise UserError(f"{path} is no result file of `ddgan evaluate`: it has no metrics")
    if not isinstance(metrics.get(metric), int | float):
        raise UserError(f"{path} has no metric {metric!r}; --metric: {', '.join(metrics)}")
    sampling = _part(content, "sampling")
    if not isinstance(seconds := sampling.get("seconds_per_100_images"), int | float):
        raise UserError(f"{path} has no sampling time: it must be of samples drawn by the program")
    model = _part(content, "model")
    folder = Path(model.get("folder") or path.stem)
    steps = sampling.get("denoising_steps")
    parts = {key: _part(content, key) for key in ("features", *COMPARED)}
    return Result(
        source=str(path),
        name=f"{folder.name}, {steps} step{'s' * (steps != 1)}" if steps else folder.name,
        train_step=model.get("step"),
        seconds=float(seconds),
        value=float(metrics[metric]),
        device=str(sampling.get("device", "")),
        comparable={
            f"{key}.{field}": value
            for key, part in parts.items()
            for field, value in part.items()
            if field in COMPARED.get(key, part)
        },
    )


def _part(content: Any, key: str) -> Mapping[str, Any]:
    """What a result file says under a key, nothing if it does not."""
    part = content.get(key) if isinstance(content, dict) else None
    return part if isinstance(part, dict) else {}


def require_comparable(results: Sequence[Result]) -> None:
    """Raises UserError, naming the first difference, unless all numbers mean the same."""
    first = results[0]
    for other in results[1:]:
        for key in sorted({*first.comparable, *other.comparable}):
            here, there = first.comparable.get(key), other.comparable.get(key)
            if here != there:
                raise UserError(
                    f"{key} is {here} in {first.source} and {there} in {other.source}: numbers "
                    "that do not mean the same have no place in one plot"
                )


def chart(results: Sequence[Result], metric: str, *, published: bool = False) -> str:
    """The plot as SVG, see `charts.standalone`. published: with the points of the paper.

    Raises UserError for results that cannot be compared, with each other or with the paper.
    """
    require_comparable(results)
    devices = {result.device for result in results}
    several = len(devices) > 1
    names = [r.name for r in results]
    if len(set(names)) < len(names):  # the same run at several train steps
        names = [f"{r.name} after {r.train_step:,}" if r.train_step else r.name for r in results]
    labels = [
        f"{name} ({r.device})" if several else name for name, r in zip(names, results, strict=True)
    ]
    where = "" if several or devices == {""} else f" on {devices.pop()}"
    series = [Series("these results", [(r.seconds, r.value) for r in results], labels)]
    if published:
        _require_the_papers(results[0], metric)
        points = [(p.seconds, p.fid) for p in PUBLISHED]
        series.append(Series("published, one V100", points, [p.name for p in PUBLISHED]))
    values = [y for s in series for _, y in s.points]
    name = NAMES.get(metric, metric.replace("_", " "))
    higher = metric.split("_")[0] in HIGHER_IS_BETTER and not metric.startswith("modes_kl")
    return scatter_chart(
        series,
        title=f"{name} and sampling time",
        x=f"seconds for 100 images{where}, logarithmic",
        y=f"{name} ({'higher' if higher else 'lower'} is better)",
        log_x=True,
        log_y=max(values) > WIDE * min(values) > 0,
    )


def _require_the_papers(result: Result, metric: str) -> None:
    if metric != "fid":
        raise UserError(f"--published: the paper's plot is of the FID, not of {metric}")
    for key, value in OF_THE_PAPER.items():
        here = result.comparable.get(key)
        if here != value:
            raise UserError(f"--published: {key} is {value} in the paper, {here} in these results")
    if "cifar10" not in str(result.comparable.get("reference.dataset")):
        raise UserError("--published: the paper's numbers are of cifar10, these are of another set")
