"""The page of a run: what it is, its samples, curves, numbers, machines and config, in one file.

page = render(run_folder.read(workdir))
"""

import io
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from etils import epath
from PIL import Image

import ddgan_jax
from ddgan_jax.config.files import leaves
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation.results import Result
from ddgan_jax.files import foreign
from ddgan_jax.files.progress import duration
from ddgan_jax.files.run_folder import SPEED, MetricsLine, Start
from ddgan_jax.viz import charts
from ddgan_jax.viz.axis_numbers import number
from ddgan_jax.viz.page_elements import (
    Html,
    definitions,
    element,
    folded,
    join,
    page,
    picture,
    table,
)
from ddgan_jax.viz.report_page import Run, training_seconds

MOST_GRIDS = 12  # over time; more are left out evenly
MOST_TRAJECTORIES = 4
MOST_METRICS = 100  # of a run that has curves and columns
MOST_ROWS = 100  # of the table of logged numbers, likewise
PIXELS = {"last": 1024, "earlier": 512}  # of a grid's longer side; larger ones are shrunk
LARGEST_PNG = 64 * 2**20  # bytes of a file
TERMS = ("samples", "features", "reference", "sampling")  # of an evaluation: what a number means
SCORE = "eval/"  # before the names of metrics that are evaluations
CHECKSUM = re.compile(r"[0-9a-f]{40,}")
OF_SAMPLES = "The same seeds at every step, from the averaged parameters."
OF_STEPS = "A row for each image: the x_0 predicted by every denoising step, the noisiest first."
NOT_SHOWN = ("data.dir", "data.path")  # where somebody's images lie is nobody else's business

# Which metrics share a chart, by parts of their names; the first that fits. What none fits gets a
# chart of its own.
GROUPS = {
    "Losses of the discriminator": ("d_loss", "d_denoising", "d_afd"),
    "Losses of the generator": ("g_loss", "g_denoising", "g_afd"),
    "Logits: high for what is taken for real": ("logit",),
    "Gradient norms": ("gradient_norm",),
    "R1 penalty": ("r1",),
    "Learning rates": ("learning_rate",),
    "Images per second": (SPEED,),
}


def render(run: Run) -> str:
    """The page, HTML without scripts and without anything to load; readable in light and dark."""
    title = f"{_method(run)} on {run.config.data.name or 'unnamed data'}"
    status = _status(run)
    return page(
        f"{title}: {run.name}",
        element("h1", title, element("span", status, class_="badge")),
        element("p", f"Run {run.name}", class_="soft"),
        _hero(run),
        *_evaluations(run.evaluations),
        *_grids("Samples over time", OF_SAMPLES, run.grids, MOST_GRIDS),
        *_grids("What each step predicts", OF_STEPS, run.trajectories, MOST_TRAJECTORIES),
        *_curves(run),
        *_machines(run.starts),
        element("h2", "Config"),
        _config(run),
        *_left_out(run.left_out),
        element(
            "footer",
            f"Written by ddgan-jax {ddgan_jax.__version__}, {_moment(time.time())}, from the run "
            "folder alone.",
        ),
    )


# ---------------------------------------------------------------------------------- what it is


def _method(run: Run) -> str:
    return "DDGAN" if run.config.objective.joint else "SIDDM"


def _status(run: Run) -> str:
    end = run.config.train.num_steps
    return "complete" if run.step >= end else f"step {run.step:,} of {end:,}"


def _hero(run: Run) -> Html:
    facts = element("div", definitions(_facts(run)), class_="card")
    if not run.grids:
        return element("div", facts, class_="hero")
    step, path = list(run.grids.items())[-1]
    return element("div", facts, _grid(step, path, PIXELS["last"]), class_="hero")


def _facts(run: Run) -> Iterable[tuple[str, str]]:
    c = run.config
    classes = f", {c.data.num_classes} classes" if c.data.num_classes else ""
    yield (
        "data",
        f"{c.data.name}, {c.data.image_size} pixels, {_channels(c.data.channels)}{classes}",
    )
    yield "denoising steps", f"{c.diffusion.num_timesteps} ({c.diffusion.schedule} schedule)"
    yield "networks", f"{c.generator.name} generator, {c.discriminator.name} discriminator"
    yield "train steps", f"{run.step:,} of {c.train.num_steps:,}, {c.train.batch_size} images each"
    yield "images seen", f"{run.step * c.train.batch_size:,}"
    if seconds := training_seconds(run.lines, c.train.batch_size):
        yield "time training", f"{duration(seconds)}, first compilation not counted"
    if speeds := [line.metrics[SPEED] for line in run.lines if SPEED in line.metrics]:
        yield "images per second", f"{number(_median(speeds))} (median)"
    moments = [line.time for line in run.lines if line.time is not None]
    if moments:
        yield "first and last line", f"{_moment(moments[0])}, {_moment(moments[-1])}"
    if run.best is not None:
        yield "best checkpoint", f"step {run.best:,}"
    if run.starts:
        yield "machine", _machine(run.starts[-1])
    yield "seed", str(c.train.seed)


def _channels(count: int) -> str:
    return {1: "gray", 3: "RGB"}.get(count, f"{count} channels")


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


# --------------------------------------------------------------------------------- evaluations


def _evaluations(evaluations: Mapping[str, Result]) -> Iterable[Html]:
    yield element("h2", "Evaluations")
    if not evaluations:
        command = element("code", "ddgan evaluate")
        yield element("p", "None yet: ", command, " puts its results here.", class_="soft")
        return
    cards = [_card(name, result) for name, result in evaluations.items()]
    yield element("div", *cards, class_="charts")


def _card(name: str, result: Result) -> Html:
    """Return the numbers of a result with what they depend on, and the rest of it folded."""
    groups = {key: value for key, value in msgspec.to_builtins(result).items() if value}
    metrics = [
        (metric, element("span", value, class_="value"))
        for metric, value in _flat(groups.pop("metrics"))
    ]
    terms = [
        (key, "; ".join(f"{name}: {_short(value)}" for name, value in _flat(groups.pop(key))))
        for key in TERMS
        if key in groups
    ]
    parts = [element("h3", name), definitions(metrics), element("hr"), definitions(terms)]
    return element("div", *parts, folded("more", definitions(_flat(groups))), class_="card")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{name}, ")
        elif value not in (None, ""):
            pairs.append((name, _shown(value)))
    return pairs


def _short(text: str) -> str:
    return f"{text[:16]}…" if CHECKSUM.fullmatch(text) else text


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


# -------------------------------------------------------------------------------------- curves


def _curves(run: Run) -> Iterable[Html]:
    yield element("h2", "Curves")
    names = sorted({name for line in run.lines for name in line.metrics}, key=_importance)
    if not names:
        yield element("p", "Nothing is logged yet.", class_="soft")
        return
    if len(names) > MOST_METRICS:
        text = f"{len(names) - MOST_METRICS:,} of {len(names):,} metrics are left out."
        yield element("p", text, class_="soft")
        names = names[:MOST_METRICS]
    scores = sorted(name for name in names if name.startswith(SCORE))
    grouped: dict[str, list[str]] = {title: [] for title in (*scores, *GROUPS)}
    for name in sorted(names):
        grouped.setdefault(_group(name), []).append(name)
    drawn = (_curve(title, members, run.lines) for title, members in grouped.items() if members)
    yield element(
        "div", *(element("div", chart, class_="card") for chart in drawn), class_="charts"
    )
    if len(run.lines) > charts.NOISY_FROM:
        text = "Faint lines are what was logged, strong ones its running mean."
        yield element("p", text, class_="soft")
    shown = _evenly(run.lines, MOST_ROWS)
    title = f"the numbers of {len(shown)} of {len(run.lines)} logged steps"
    rows = [
        [line.step, *(_logged(line.metrics.get(name)) for name in sorted(names))] for line in shown
    ]
    head = ["step", *sorted(names)]
    yield folded(title, element("div", table(head, rows, numbers=True), class_="card"))


def _importance(name: str) -> tuple[bool, str]:
    """Return what metrics are sorted by where there are too many: scores come first."""
    return not name.startswith(SCORE), name


def _group(name: str) -> str:
    if name.startswith(SCORE):
        return name  # each has a unit of its own
    fitting = (title for title, parts in GROUPS.items() if any(part in name for part in parts))
    return next(fitting, name)


def _curve(title: str, names: Sequence[str], lines: Sequence[MetricsLine]) -> Html:
    series = [
        charts.Series(name, [(e.step, e.metrics[name]) for e in lines if name in e.metrics])
        for name in names
    ]
    # A chart of its own is called after its metric.
    title = title.removeprefix(SCORE).replace("_", " ") if title in names else title
    return Html(charts.line_chart(series, title=title, x="step"))


def _logged(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _evenly(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


# --------------------------------------------------------------------------------------- grids


def _grids(title: str, about: str, grids: Mapping[int, Any], most: int) -> Iterable[Html]:
    yield element("h2", title)
    if not grids:
        yield element("p", "Nothing is drawn yet.", class_="soft")
        return
    yield element("p", about, class_="soft")
    shown = _evenly(list(grids.items()), most)
    yield element("div", *(_grid(*item, PIXELS["earlier"]) for item in shown), class_="grids")


def _grid(step: int, path: epath.Path, pixels: int) -> Html:
    try:
        shown_picture = picture(_at_most(path, pixels), f"step {step}")
    except UserError as error:
        reason = str(error).replace(f"{path.parent}/", "")
        shown_picture = element("p", f"Left out: {reason}", class_="soft")
    caption = element("figcaption", f"step {step:,}")
    return element("figure", shown_picture, caption, class_="card")


def _at_most(path: epath.Path, pixels: int) -> bytes:
    """Return a picture as a PNG file, shrunk if its longer side is longer than that.

    Raises UserError for a file that is missing, damaged, no picture, or too large.
    """
    from ddgan_jax.data import decode

    content = foreign.read_bytes(path, "picture", most=LARGEST_PNG)
    decoded = decode.decode(content, None, os.fspath(path))
    gray = decoded.shape[-1] == 1
    image = Image.fromarray(decoded[..., 0] if gray else decoded)
    image.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    png = io.BytesIO()
    image.save(png, format="PNG")
    return png.getvalue()


# ------------------------------------------------------------------------- machines and config


def _machines(starts: Sequence[Start]) -> Iterable[Html]:
    yield element("h2", "Hardware and versions")
    if not starts:
        yield element("p", "Not recorded in this run folder.", class_="soft")
        return
    rows = [
        (
            f"{start.step:,}",
            "" if start.time is None else _moment(start.time),
            _machine(start),
            _known(start.processes),
            start.jax,
            start.ddgan_jax,
        )
        for start in _evenly(starts, MOST_ROWS)
    ]
    if len(rows) < len(starts):
        text = f"{len(rows)} of {len(starts):,} starts, evenly chosen."
        yield element("p", text, class_="soft")
    head = ("after step", "started", "devices", "processes", "JAX", "ddgan-jax")
    yield element("div", table(head, rows), class_="card")


def _machine(start: Start) -> str:
    cores = f", {_known(start.cores)} cores" if start.platform == "cpu" else ""
    return f"{_known(start.devices)} × {start.device_kind}{cores}"


def _known(count: int | None) -> str:
    return "?" if count is None else str(count)


def _left_out(lines: Sequence[str]) -> Iterable[Html]:
    if lines:
        yield element("h2", "Left out")
        yield element("div", *(element("p", line) for line in lines), class_="card")


def _config(run: Run) -> Html:
    sections: dict[str, list[tuple[str, Any]]] = {}
    for name, value in leaves(run.config):
        if name in NOT_SHOWN:
            continue
        section, _, field = name.rpartition(".")
        shown = repr(value) if isinstance(value, str) else str(value)
        sections.setdefault(section, []).append((field, shown))
    parts = (
        element("div", element("h3", name), definitions(fields))
        for name, fields in sorted(sections.items())
    )
    return folded("every field", element("div", join(parts), class_="card columns"))
