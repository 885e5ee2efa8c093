"""Draw panels of numbers over a setting: a dot for each seed, a line through the means.

The result is the text of an SVG file in the colours of the house, for light and for dark pages. Its
description holds the numbers that are drawn, so that a test can compare them with the results on
any version of matplotlib.
"""

import json
import math
import re
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from ddgan_jax.viz import figure_files
from ddgan_jax.viz.axis_numbers import around, distinct
from ddgan_jax.viz.charts import CHARACTER, STYLE
from ddgan_jax.viz.style import INK, PAPER, RULE, SERIES, SOFT, clean, draw_legend, settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 840, 330  # of the file, in pixels
LEFT, RIGHT, BOTTOM, GAP = 64, 20, 48, 84  # margins, and the room between panels
TOP, ROW = 80, 20  # above the axes without a legend, and a line of the legend
SIDE = 0.06  # distance of two curves' dots at one setting, of that between settings
SPACE = 0.06  # part of an axis that is free at each end of its data


class Curve(NamedTuple):
    """Numbers of one name. points: (setting, number) of each seed. published: those of a paper."""

    name: str
    colour: int
    points: Sequence[tuple[float, float]]
    published: bool = False


class Panel(NamedTuple):
    """Axes with curves.

    even: the settings stand side by side at equal distances; otherwise x is logarithmic. most: the
    largest number that there can be, beyond which no axis reaches.
    """

    x: str
    y: str
    curves: Sequence[Curve]
    even: bool = True
    log_y: bool = True
    most: float = math.inf


def draw(title: str, about: str, panels: Sequence[Panel]) -> str:
    """Return the SVG file of the panels, side by side below a title, a line and a legend."""
    from matplotlib.figure import Figure

    with settings(title):
        # At 72 dots per inch the units of matplotlib's sizes, points, are pixels.
        figure = Figure((WIDTH / 72, HEIGHT / 72), dpi=72)
        style = {"size": 13, "weight": "bold", "va": "baseline"}
        figure.text(LEFT / WIDTH, 1 - 20 / HEIGHT, clean(title), **style)
        figure.text(LEFT / WIDTH, 1 - 40 / HEIGHT, clean(about), color=SOFT)
        top = TOP + ROW * _draw_legend(figure, panels)
        width = (WIDTH - LEFT - RIGHT - GAP * (len(panels) - 1)) / len(panels)
        for i, panel in enumerate(panels):
            left = LEFT + i * (width + GAP)
            height = HEIGHT - top - BOTTOM
            place = (left / WIDTH, BOTTOM / HEIGHT, width / WIDTH, height / HEIGHT)
            axes = figure.add_axes(place)
            _draw_panel(axes, panel)
        drawn = figure_files.encoded(figure, ".svg", clean(title), dpi=72).decode()
    return _for_pages(drawn, description(panels))


def _for_pages(drawn: str, data: str) -> str:
    """Return matplotlib's file with colours for dark pages, and with a description."""
    head, _, rest = drawn.partition("<svg ")
    start, _, rest = rest.partition(">")
    # matplotlib counts in points, of which a browser makes more pixels.
    start = re.sub(r'(width|height)="(\d+)pt"', r'\1="\2"', start)
    # No rule of STYLE reaches the shapes of dots; what refers to them has the same colours.
    rest = re.sub(r'(<path id="m\w+" d="[^"]*") style="[^"]*"', r"\1", rest)
    inside = f"<desc>{escape(data)}</desc><style>{STYLE}</style>"
    return f'{head}<svg class="chart" {start}>\n{inside}{rest}'


def description(panels: Sequence[Panel]) -> str:
    """Return the numbers of the panels as JSON."""
    return json.dumps([[panel.x, panel.y, list(map(list, panel.curves))] for panel in panels])


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    settings_of_x = sorted({x for curve in panel.curves for x, _ in curve.points})
    values = np.array([y for curve in panel.curves for _, y in curve.points], float)
    log_y = panel.log_y and values.min() > 0
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=1)
    ticks = [tick for tick in around(values, log_y, SPACE) if tick <= panel.most]
    if ticks[-1] < values.max():
        ticks.append(panel.most)
    axes.set(yscale="log" if log_y else "linear", ylim=(ticks[0], ticks[-1]))
    axes.set_yticks(ticks, distinct(ticks))
    if panel.even:
        places = {x: float(i) for i, x in enumerate(settings_of_x)}
        axes.set_xlim(-0.3, len(places) - 0.7)
        axes.set_xticks(list(places.values()), [f"{x:g}" for x in places])
    else:
        places = {x: x for x in settings_of_x}
        ticks = around(np.array(settings_of_x), True, SPACE)
        axes.set(xscale="log", xlim=(ticks[0], ticks[-1]))
        axes.set_xticks(ticks, distinct(ticks))
    axes.minorticks_off()
    axes.set_xlabel(clean(panel.x), color=SOFT)
    axes.set_title(clean(panel.y), color=SOFT, loc="left", size=12, pad=10)
    axes.tick_params(color=RULE, labelcolor=SOFT, width=1)
    axes.tick_params("y", length=0, pad=6)
    axes.tick_params("x", pad=7)
    # Dots of several curves at one setting stand side by side.
    middle = max(curve.colour for curve in panel.curves) / 2
    for curve in panel.curves:
        away = SIDE * (curve.colour - middle) if panel.even else 0.0
        _draw_curve(axes, curve, {x: place + away for x, place in places.items()})


def _draw_curve(axes: "Axes", curve: Curve, places: dict[float, float]) -> None:
    colour = SERIES[curve.colour]
    at = [places[x] for x, _ in curve.points]
    if curve.published:
        values = [y for _, y in curve.points]
        style = {"mfc": PAPER, "mec": colour, "mew": 1.5, "clip_on": False}
        axes.plot(at, values, "D--", color=colour, linewidth=1, ms=6, **style)
        return
    by_place: dict[float, list[float]] = {}
    for place, (_, y) in zip(at, curve.points, strict=True):
        by_place.setdefault(place, []).append(y)
    means = [statistics.fmean(values) for values in by_place.values()]
    dots = {"mfc": colour, "mec": PAPER, "clip_on": False}
    axes.plot(list(by_place), means, "-", color=colour, linewidth=1.75, clip_on=False)
    axes.plot(at, [y for _, y in curve.points], "o", ms=5, mew=0.5, alpha=0.6, **dots)
    axes.plot(list(by_place), means, "o", ms=8, mew=1, zorder=3, **dots)


def _draw_legend(figure: "Figure", panels: Sequence[Panel]) -> int:
    """Draw a line for each name, and return how many rows that took."""
    from matplotlib.lines import Line2D

    curves = {c.name: c for panel in panels for c in panel.curves}
    entries = [(name, SERIES[c.colour], SERIES[c.colour], "o") for name, c in curves.items()]
    if any(c.published for panel in panels for c in panel.curves):
        entries.append(("the paper's number", PAPER, INK, "D"))
    if len(entries) < 2:
        return 0
    dots = [
        Line2D([], [], marker=marker, ls="", ms=7, mfc=face, mec=edge)
        for _, face, edge, marker in entries
    ]
    whole = sum(34 + CHARACTER * len(name) for name, *_ in entries)
    rows = math.ceil(whole / (WIDTH - LEFT - RIGHT))
    columns = math.ceil(len(entries) / rows)
    names = [name for name, *_ in entries]
    draw_legend(figure, dots, names, columns, (LEFT / WIDTH, 1 - 52 / HEIGHT))
    return rows
