"""Plot quality against sampling time, from the result files of `ddgan evaluate`.

Numbers share a plot only if they mean the same: they need the same metric, features, reference and
number of samples. The published points are from the DDGAN paper (Xiao et al. 2022), for CIFAR-10
with 50,000 samples, drawn 100 images at a time on one V100.
"""

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ddgan_jax.errors import UserError, shown
from ddgan_jax.evaluation import results
from ddgan_jax.files.paths import entries, user_path
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.metrics.names import HIGHER_IS_BETTER
from ddgan_jax.viz.charts import Series, scatter_chart, scatter_file

# The fields of a result that decide what its numbers mean: all fields of the features, and these of
# the others. Neither the place of the statistics nor the scored run is among them.
COMPARED = {
    "features": (),
    "reference": ("dataset", "count", "preprocessing"),
    "samples": ("count",),
}
# Results in one plot.
MOST_RESULTS = 200
# Ratio of the largest to the smallest number from which their axis is logarithmic too.
WIDE = 3
# The least number that may stand on a logarithmic axis.
LEAST_OF_LOG = 1e-9
NAMES = {
    "fid": "FID",
    "is": "Inception Score",
    "kid": "KID",
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
}
# The metrics that a plot is of, the first before all others, if nobody names one.
PREFERRED = ("fid", "frechet", "kid", "kernel", "is", "score")


class Result(NamedTuple):
    """A result file. comparable: the values that must be equal in all results of a plot."""

    source: str
    # Of the run, and its denoising steps.
    name: str
    train_step: int | None
    # For 100 images.
    seconds: float
    value: float
    device: str
    comparable: Mapping[str, Any]


class Published(NamedTuple):
    """A point of the paper. seconds: for 100 images."""

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
# The fields that the paper's own numbers have.
OF_THE_PAPER = {"features.protocol": "pytorch_fid", "samples.count": 50_000}


def find(names: str) -> list[Path]:
    """Return the result files that a list such as "a.json,runs/x" names.

    A folder stands for the files in it, and a run folder for its evaluations. A name of something
    that exists means that file, whatever its characters; any other may be a pattern such as
    "r/*.json". Raises UserError for a part that names nothing, and for too many files.
    """
    found: list[Path] = []
    # A file may have a comma in its name: what exists is taken as it is written.
    for name in [names] if os.path.lexists(names) else names.split(","):
        path = user_path(name, "results")
        paths = [path] if os.path.lexists(path) else map(Path, sorted(glob.glob(str(path))))
        files = [file for path in paths for file in _files(path)]
        if not files:
            raise UserError(f"`results`: there is no result file at {shown(repr(name), 300)}")
        found += files
    if len(found) > MOST_RESULTS:
        raise UserError(f"`results`: {len(found):,} files are more than {MOST_RESULTS} in one plot")
    return found


def _files(path: os.PathLike) -> list[Path]:
    """Return the file itself, or the result files in a folder."""
    if not os.path.isdir(path):
        return [Path(path)]
    evaluations = RunFolder.at(path).evaluations
    folder = evaluations if evaluations.is_dir() else path
    return [Path(file) for file in entries(folder, after=".json")]


def common_metric(paths: Sequence[str | os.PathLike]) -> str:
    """Return a metric that all result files have: the FID, or the first of PREFERRED.

    Raises UserError if they have none in common, and for a file that is no result.
    """
    of_files = [_by_preference(results.read(path).metrics) for path in paths]
    common = [name for name in of_files[0] if all(name in others for others in of_files)]
    if common:
        return common[0]
    first = of_files[0]
    path, other = next(
        (path, others)
        for path, others in zip(paths, of_files, strict=True)
        if not set(first) & set(others)
    )
    raise UserError(
        f"these results have no metric in common: {shown(paths[0], 300)} has {shown(first[0])}, "
        f"{shown(path, 300)} has {shown(other[0])}: name results of one kind, such as "
        "'runs/*/evaluations/*pixels*.json'"
    )


def _by_preference(metrics: Mapping[str, float]) -> list[str]:
    """Return the names of metrics, those of PREFERRED first; the spread of one is none."""
    ranks = {name: place for place, name in enumerate(PREFERRED)}
    # Names continue with the features and the number of images: frechet_pixels_1000.
    kinds = [name for name in metrics if "_std" not in name] or list(metrics)
    return sorted(kinds, key=lambda name: ranks.get(name.split("_")[0], len(ranks)))


def read(path: str | os.PathLike, metric: str) -> Result:
    """Return the result in a file.

    Raises UserError if it is no result file, or lacks the metric or the sampling time.
    """
    content = results.read(path)
    if metric not in content.metrics:
        known = shown(", ".join(content.metrics), 300)
        raise UserError(f"{shown(path, 300)} has no metric {metric!r}; `metric`: {known}")
    sampling = content.sampling
    if sampling is None:
        raise UserError(
            f"{shown(path, 300)} has no sampling time: it must be of samples drawn by the program"
        )
    model = content.model or results.Scored()
    folder, steps = Path(model.folder or Path(path).stem), sampling.denoising_steps
    parts = {key: msgspec.to_builtins(getattr(content, key)) or {} for key in COMPARED}
    return Result(
        source=str(path),
        name=f"{folder.name}, {steps} step{'s' * (steps != 1)}" if steps else folder.name,
        train_step=model.step,
        seconds=sampling.seconds_per_100_images,
        value=content.metrics[metric],
        device=sampling.device,
        comparable={
            f"{key}.{field}": part[field]
            for key, part in parts.items()
            for field in COMPARED[key] or part
            if part.get(field) is not None
        },
    )


def require_comparable(found: Sequence[Result]) -> None:
    """Refuse results that cannot be compared with each other. Raises UserError."""
    first = found[0]
    for other in found[1:]:
        for key in sorted({*first.comparable, *other.comparable}):
            here, there = first.comparable.get(key), other.comparable.get(key)
            if here != there:
                raise UserError(
                    f"{key} is {shown(here)} in {shown(first.source, 300)} and {shown(there)} in "
                    f"{shown(other.source, 300)}: numbers that do not mean the same have no place "
                    "in one plot"
                )


def chart(found: Sequence[Result], metric: str, *, published: bool = False) -> str:
    """Return the plot as an element for a page.

    published: add the points of the paper. Raises UserError for results that cannot be compared
    with each other, or with the paper.
    """
    return scatter_chart(**_plot(found, metric, published))


def chart_file(
    form: str, found: Sequence[Result], metric: str, *, published: bool = False
) -> bytes:
    """Return the plot as a file. form: an ending of `figure_files.FORMS`."""
    return scatter_file(form, **_plot(found, metric, published))


def _plot(found: Sequence[Result], metric: str, published: bool) -> dict[str, Any]:
    """Return the arguments of the chart."""
    require_comparable(found)
    devices = {result.device for result in found}
    several = len(devices) > 1
    names = [r.name for r in found]
    # The same run may be there at several train steps.
    if len(set(names)) < len(names):
        names = [f"{r.name} after {r.train_step:,}" if r.train_step else r.name for r in found]
    labels = [
        f"{name} ({r.device})" if several else name for name, r in zip(names, found, strict=True)
    ]
    where = "" if several or devices == {""} else f" on {devices.pop()}"
    series = [Series("these results", [(r.seconds, r.value) for r in found], labels)]
    if published:
        _require_the_papers(found[0], metric)
        points = [(p.seconds, p.fid) for p in PUBLISHED]
        series.append(Series("published, one V100", points, [p.name for p in PUBLISHED]))
    values = [y for s in series for _, y in s.points]
    name = _in_words(metric)
    # The first word is the metric; modes_kl is a divergence although more modes are better.
    higher = metric.split("_")[0] in HIGHER_IS_BETTER and not metric.startswith("modes_kl")
    return {
        "series": series,
        "title": f"{name} and sampling time",
        "about": "A point is one evaluation of a run: its denoising steps decide how long "
        "drawing takes.",
        "x": f"seconds for 100 images{where}, logarithmic",
        "y": f"{name}, {'higher' if higher else 'lower'} is better",
        "log_x": True,
        "log_y": min(values) > LEAST_OF_LOG and max(values) > WIDE * min(values),
    }


def _in_words(metric: str) -> str:
    """Return the name of a metric for an axis: "Fréchet distance (pixels, 1,000 images)"."""
    kind, *parts = metric.split("_")
    if kind not in NAMES:
        return metric.replace("_", " ")
    details = [f"{int(part):,} images" if part.isdecimal() else part for part in parts]
    return f"{NAMES[kind]} ({', '.join(details)})" if details else NAMES[kind]


def _require_the_papers(result: Result, metric: str) -> None:
    if metric != "fid":
        raise UserError(f"`published`: the paper's plot is of the FID, not of {metric}")
    for key, value in OF_THE_PAPER.items():
        here = result.comparable.get(key)
        if here != value:
            raise UserError(f"`published`: {key} is {value} in the paper, {here} in these results")
    if "cifar10" not in str(result.comparable.get("reference.dataset")):
        raise UserError("`published`: the paper's numbers are of cifar10, these are of another set")
