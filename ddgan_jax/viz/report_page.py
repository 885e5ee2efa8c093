"""Write the page of a run: its samples, curves, numbers, machines and config, in one file.

page = render(report_data.read(workdir))

report.html.j2 holds the page's text and looks; this module gives it the values.
"""

import re
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import msgspec
from markupsafe import Markup

import ddgan_jax
from ddgan_jax.config import ConfigDict, method_title
from ddgan_jax.config.files import leaves
from ddgan_jax.errors import printable
from ddgan_jax.evaluation.results import Result
from ddgan_jax.files.run_folder import SPEED, MetricsLine, Start
from ddgan_jax.progress import duration
from ddgan_jax.viz import charts, words
from ddgan_jax.viz.axis_numbers import number
from ddgan_jax.viz.report_data import Run, training_seconds
from ddgan_jax.viz.report_grids import Grid, evenly, read_grids

# Grids over time; more are left out evenly.
MOST_GRIDS = 12
MOST_TRAJECTORIES = 4
# Metrics of a run that have curves and columns.
MOST_METRICS = 100
# Rows of the tables of logged numbers and of starts.
MOST_ROWS = 100
# Pixels of a grid's longer side; larger ones are shrunk.
PIXELS_NEWEST, PIXELS_EARLIER = 1024, 512
# The parts of a result file that its numbers depend on.
TERMS = ("samples", "features", "reference", "sampling")
# The beginning of the names of metrics that are evaluations.
SCORE = "eval/"
CHECKSUM = re.compile(r"[0-9a-f]{40,}")
# Where somebody's images lie is nobody else's business.
NOT_SHOWN = ("data.dir", "data.path")

# Metrics whose names have one of these parts share a chart, the first that fits. Every other
# metric gets a chart of its own.
GROUPS = {
    "Losses of the discriminator": ("d_loss", "d_denoising", "d_afd"),
    "Losses of the generator": ("g_loss", "g_denoising", "g_afd"),
    "Logits: high for what is taken for real": ("logit",),
    "Gradient norms": ("gradient_norm",),
    "R1 penalty": ("r1",),
    "Learning rates": ("learning_rate",),
    "Images per second": (SPEED,),
}

Pairs = Sequence[tuple[str, Any]]


class Evaluation(NamedTuple):
    """A result file. terms: what its metrics depend on."""

    name: str
    metrics: Pairs
    terms: Pairs
    rest: Pairs


class Curves(NamedTuple):
    """Charts of the logged metrics, and a table of their numbers."""

    charts: Sequence[Markup]
    smoothed: bool
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    steps: int
    left_out: str


def environment() -> jinja2.Environment:
    """Return the environment of the page's template: whatever is not markup is shown as text."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ddgan_jax", "viz"),
        autoescape=True,
        # Characters that nobody sees, or that reorder a line, are shown as escapes.
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
        # A misspelled name in the template is an error, and not an empty place on the page.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(run: Run) -> str:
    """Return the page, HTML without scripts and without anything to load, for light and dark."""
    grids = list(run.grids.items())
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=f"{method_title(run.config)} on {run.config.data.name or 'unnamed data'}",
            name=run.name,
            status=_status(run),
            facts=list(_facts(run)),
            newest=Grid.read(*grids[-1], PIXELS_NEWEST) if grids else None,
            evaluations=[_evaluation(*item) for item in run.evaluations.items()],
            shown=_shown(run.config),
            steps=_steps(run.config),
            samples=read_grids(run.grids, MOST_GRIDS, PIXELS_EARLIER),
            trajectories=read_grids(run.trajectories, MOST_TRAJECTORIES, PIXELS_EARLIER),
            curves=_curves(run.lines),
            starts=[_start(start) for start in evenly(run.starts, MOST_ROWS)],
            num_starts=len(run.starts),
            config=_config(run),
            left_out=run.left_out,
            chart_style=Markup(charts.STYLE),
            version=ddgan_jax.__version__,
            now=_moment(time.time()),
        )
    )


# ------------------------------------------------------------------------------- the run in short


def _status(run: Run) -> str:
    end = run.config.train.num_steps
    return "complete" if run.step >= end else f"step {run.step:,} of {end:,}"


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    c = run.config
    classes = f", {c.data.num_classes} classes" if c.data.num_classes else ""
    channels = {1: "gray", 3: "RGB"}.get(c.data.channels, f"{c.data.channels} channels")
    yield "data", f"{c.data.name}, {c.data.image_size} pixels, {channels}{classes}"
    yield "denoising steps", f"{c.diffusion.num_timesteps} ({c.diffusion.schedule} schedule)"
    yield "networks", f"{c.generator.name} generator, {c.discriminator.name} discriminator"
    yield "train steps", f"{run.step:,} of {c.train.num_steps:,}, {c.train.batch_size} images each"
    yield "images seen", f"{run.step * c.train.batch_size:,}"
    if seconds := training_seconds(run.lines, c.train.batch_size):
        yield "time training", f"{duration(seconds)}, first compilation not counted"
    if speeds := [line.metrics[SPEED] for line in run.lines if SPEED in line.metrics]:
        # median_high is a speed that was measured, and not the mean of two.
        yield "images per second", f"{number(statistics.median_high(speeds))} (median)"
    moments = [line.time for line in run.lines if line.time is not None]
    if moments:
        yield "first and last line", f"{_moment(moments[0])}, {_moment(moments[-1])}"
    if run.best is not None:
        yield "best checkpoint", f"step {run.best:,}"
    if run.starts:
        yield "machine", _machine(run.starts[-1])
    yield "seed", str(c.train.seed)


def _shown(config: ConfigDict) -> str:
    """Return which images a grid shows, as `drawing.overview` chooses them."""
    count, classes = config.log.num_samples, config.data.num_classes
    if not classes:
        return f"Seeds 0 to {count - 1}, row by row"
    classes = min(classes, count)
    seeds = count // classes
    each = "seed 0" if seeds == 1 else f"the seeds 0 to {seeds - 1}"
    return f"Classes 0 to {classes - 1} in turn, each with {each}, row by row"


def _steps(config: ConfigDict) -> str:
    """Return the columns of a picture of denoising steps."""
    steps = config.sampling.num_steps or config.diffusion.num_timesteps
    return ", ".join(words.subscripted(f"from x_{t}") for t in range(steps, 0, -1))


def _start(start: Start) -> Sequence[str]:
    """Return the row of a start: step, time, devices, processes and versions."""
    moment = "" if start.time is None else _moment(start.time)
    versions = (start.jax, start.ddgan_jax)
    return (f"{start.step:,}", moment, _machine(start), _known(start.processes), *versions)


def _machine(start: Start) -> str:
    cores = f", {_known(start.cores)} cores" if start.platform == "cpu" else ""
    return f"{_known(start.devices)} × {start.device_kind}{cores}"


def _known(count: int | None) -> str:
    return "?" if count is None else str(count)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _config(run: Run) -> list[tuple[str, Pairs]]:
    """Return the fields of each section."""
    sections: dict[str, list[tuple[str, Any]]] = {}
    for name, value in leaves(run.config):
        if name not in NOT_SHOWN:
            section, _, field = name.rpartition(".")
            # Strings have quotes, so that an empty one can be seen.
            shown = repr(value) if isinstance(value, str) else str(value)
            sections.setdefault(section, []).append((field, shown))
    return sorted(sections.items())


# --------------------------------------------------------------------------------- evaluations


def _evaluation(name: str, result: Result) -> Evaluation:
    # The file's order of the groups is kept; those that are empty say nothing.
    groups = {key: value for key, value in msgspec.to_builtins(result).items() if value}
    metrics = _flat(groups.pop("metrics"))
    terms = [
        (key, "; ".join(f"{name}: {_short(value)}" for name, value in _flat(groups.pop(key))))
        for key in TERMS
        if key in groups
    ]
    return Evaluation(name, metrics, terms, _flat(groups))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the values of nested mappings under the names that lead to them."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{name}, ")
        elif value not in (None, ""):
            pairs.append((name, _text(value)))
    return pairs


def _short(text: str) -> str:
    return f"{text[:16]}…" if CHECKSUM.fullmatch(text) else text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


# -------------------------------------------------------------------------------------- curves


def _curves(lines: Sequence[MetricsLine]) -> Curves | None:
    found = {name for line in lines for name in line.metrics}
    if not found:
        return None
    # Where there are too many, evaluations come before all others.
    by_importance = sorted(found, key=lambda name: (not name.startswith(SCORE), name))
    names = sorted(by_importance[:MOST_METRICS])
    too_many = f"{len(found) - len(names):,} of {len(found):,} metrics are left out."
    return Curves(
        charts=[_chart(*group, lines) for group in _groups(names)],
        smoothed=len(lines) > charts.NOISY_FROM,
        head=["step", *names],
        rows=[
            [line.step, *(_logged(line.metrics.get(name)) for name in names)]
            for line in evenly(lines, MOST_ROWS)
        ],
        steps=len(lines),
        left_out=too_many if len(names) < len(found) else "",
    )


def _groups(names: Sequence[str]) -> Iterable[tuple[str, list[str]]]:
    """Return the charts in their order: title and metrics of each."""
    scores = [name for name in names if name.startswith(SCORE)]
    grouped: dict[str, list[str]] = {title: [] for title in (*scores, *GROUPS)}
    for name in names:
        fitting = (title for title, parts in GROUPS.items() if any(part in name for part in parts))
        # Each score has a unit of its own.
        title = name if name.startswith(SCORE) else next(fitting, name)
        grouped.setdefault(title, []).append(name)
    return ((title, members) for title, members in grouped.items() if members)


def _chart(title: str, names: Sequence[str], lines: Sequence[MetricsLine]) -> Markup:
    series = [
        charts.Series(name, [(e.step, e.metrics[name]) for e in lines if name in e.metrics])
        for name in names
    ]
    # A chart of its own is called after its metric.
    title = title.removeprefix(SCORE).replace("_", " ") if title in names else title
    # The chart is markup made here, in which ElementTree has escaped all texts.
    return Markup(charts.line_chart(series, title=title, x="step"))


def _logged(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
