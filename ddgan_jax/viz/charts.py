"""Draw line and scatter charts as SVG text, for light and for dark pages.

matplotlib draws them, through its objects rather than pyplot, so that no state outlives a call. Its
output is then made fit for a page: namespaces and identifiers go, and each mark gets a text that
shows under the pointer. A chart has the colours of a light page; STYLE, which a page holds once,
replaces them on a dark one. `standalone` makes a file of a chart.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np

from ddgan_jax.viz import figure_files
from ddgan_jax.viz.axis_numbers import around, distinct, number
from ddgan_jax.viz.style import INK, PAPER, RULE, SERIES, SOFT, clean, draw_legend, settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES, DOTS = (480, 260), (760, 440)  # width and height of both kinds, in pixels
FILE_DPI = 216  # of a PNG file, with 72 pixels of these in an inch
LEFT, RIGHT, BOTTOM, TOP = 60, 18, 42, 34  # margins; a legend adds to the last one
ROW = 18  # height of a line of the legend
DIGIT = 7.7  # width of a digit at 12 px in the widest font
SPACE = 0.06  # part of an axis that a scatter chart keeps free at each end of its data
# Mean width of a character at 12 px; a browser measures its own font only when it draws.
CHARACTER = 6.7
NOISY_FROM = 60  # points, from which a line is drawn faintly, with its running mean

# Each colour with the one that takes its place on a dark page.
DARK = dict(
    zip(
        (INK, SOFT, RULE, PAPER, *SERIES),
        ("#e6e9ef", "#98a2b3", "#333a47", "#171b22")
        + ("#6ea8fe", "#f0a35e", "#6cc48a", "#b79af0", "#f08aa8", "#5cc8d8"),
        strict=True,
    )
)
STYLE = (
    "\n.chart { display: block; width: 100%; height: auto; }\n"
    ".chart text { font-family: system-ui, sans-serif !important; }\n"
    "@media (prefers-color-scheme: dark) {\n"
    + "".join(
        f'  .chart [style*="{part}: {light}"] {{ {part}: {dark} !important; }}\n'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    + "}\n"
)

TIP = "tip "  # before a text in the name of a shape
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


Point = tuple[float, float]


class Series(NamedTuple):
    """Points of one colour. labels: the texts beside the points of a scatter chart."""

    name: str
    points: Sequence[Point]
    labels: Sequence[str] = ()


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str = "",
    y: str = "",
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Return a chart with a line for each series, in the order of its points.

    The legend has the last value of each. Long lines are drawn with their running mean. x, y:
    names of the axes. log_x, log_y: logarithmic axes, for positive values. Raises ValueError
    without points, and for a value that has no place on its axis.
    """
    entries = [f"{s.name} {number(s.points[-1][1])}" if s.points else s.name for s in series]
    with settings(title):
        chart = _Chart(LINES, series, title, entries, (x, y), (log_x, log_y))
        for i, s in enumerate(series):
            if s.points:
                chart.draw_line(s, SERIES[i % len(SERIES)])
        return chart.svg()


def scatter_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str = "",
    y: str = "",
    log_x: bool = False,
    log_y: bool = False,
    about: str = "",
) -> str:
    """Return a chart with a dot for each point, labelled where there is room.

    It has a legend if there are several series. about: a line below the title, such as what a point
    is. The other arguments and the errors are those of `line_chart`.
    """
    with settings(title):
        return _scatter(series, title, (x, y), (log_x, log_y), about).svg()


def scatter_file(
    form: str,
    series: Sequence[Series],
    *,
    title: str,
    x: str = "",
    y: str = "",
    log_x: bool = False,
    log_y: bool = False,
    about: str = "",
) -> bytes:
    """Return the same chart as a file. form: an ending of `figure_files.FORMS`."""
    with settings(title):
        chart = _scatter(series, title, (x, y), (log_x, log_y), about)
        return standalone(chart.svg()).encode() if form == ".svg" else chart.file(form)


def _scatter(
    series: Sequence[Series],
    title: str,
    names: tuple[str, str],
    logs: tuple[bool, bool],
    about: str,
) -> "_Chart":
    entries = [s.name for s in series] if len(series) > 1 else []
    chart = _Chart(DOTS, series, title, entries, names, logs, about, SPACE)
    points, labels = [], []
    for i, s in enumerate(series):
        texts = [*s.labels, *[""] * len(s.points)][: len(s.points)]
        for point, label in zip(s.points, texts, strict=True):
            tip = f"{label or s.name}: {number(point[0])}, {number(point[1])}"
            chart.draw_dot(point, SERIES[i % len(SERIES)], 10, tip)
        points, labels = [*points, *s.points], [*labels, *texts]
    chart.draw_labels(points, labels)
    return chart


def standalone(chart: str) -> str:
    """Return the text of an SVG file that shows the chart alone, on its own paper."""
    head, _, rest = chart.partition(">")
    width, height = head.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    space = f'{head} xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    paper = f'<rect style="fill: {PAPER}" width="{width}" height="{height}" />'
    return f"{space}<style>{STYLE}</style>{paper}{rest}\n"


def running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Return the means over each value and up to `reach` neighbours on either side of it."""
    sums = np.concatenate([[0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


class _Chart:
    """A figure with axes around all points, a title and a legend, on which series are drawn."""

    def __init__(
        self,
        size: tuple[int, int],
        series: Sequence[Series],
        title: str,
        entries: Sequence[str],
        names: tuple[str, str],
        logs: tuple[bool, bool],
        about: str = "",
        space: float = 0,
    ):
        from matplotlib.figure import Figure

        values = np.array([point for s in series for point in s.points], float)
        if not len(values) or not np.isfinite(values).all():
            raise ValueError("a chart needs points, all of them finite")
        width, height = size
        x_ticks, y_ticks = (around(values[:, i], log, space) for i, log in enumerate(logs))
        x_texts, y_texts = distinct(x_ticks), distinct(y_ticks)
        # The margins have room for the longest number, and for the name of the axis beside it.
        left = max(LEFT, round(DIGIT * max(map(len, y_texts)) + 12 + ROW * bool(names[1])))
        right = max(RIGHT, round(DIGIT * len(x_texts[-1]) / 2 + 2))
        inside = width - left - right
        widest = 28 + CHARACTER * max(map(len, entries), default=0)
        columns = max(1, int(inside / widest))
        legend = ROW * -(-len(entries) // columns)
        height += max(0, legend - ROW)
        # The line below the title moves the legend and the axes down.
        top = TOP + ROW * bool(about)
        self._title, self._size = title, (width, height)
        # At 72 dots per inch the units of matplotlib's sizes, points, are pixels.
        self._figure = Figure((width / 72, height / 72), dpi=72)
        up = (height - BOTTOM - top - legend) / height
        self._axes = self._figure.add_axes((left / width, BOTTOM / height, inside / width, up))
        self._axes.spines[:].set_visible(False)
        self._axes.set_axisbelow(True)
        self._axes.grid(axis="y", color=RULE, linewidth=1, clip_on=False)
        _set_numbers(self._axes, "x", x_ticks, x_texts, logs[0])
        _set_numbers(self._axes, "y", y_ticks, y_texts, logs[1])
        self._axes.set_xlabel(clean(names[0]), color=SOFT)
        self._axes.set_ylabel(clean(names[1]), color=SOFT)
        self._axes.tick_params(color=RULE, labelcolor=SOFT, width=1)
        self._axes.tick_params("y", length=0, pad=6)
        style = {"size": 13, "weight": "bold", "va": "baseline"}
        self._figure.text(left / width, 1 - 18 / height, clean(title), **style)
        if about:
            self._figure.text(left / width, 1 - 36 / height, clean(about), color=SOFT)
        self._draw_legend(entries, columns, (left / width, 1 - (top - 8) / height))

    def draw_line(self, series: Series, colour: str) -> None:
        """Draw a line through the points and a dot at its end; a long one with its mean."""
        x, y = np.array(series.points, float).T
        style = {"color": colour, "clip_on": False, "gid": _tip(series.name)}
        if len(x) > NOISY_FROM:
            self._axes.plot(x, y, linewidth=1, alpha=0.3, **style)
            y = running_mean(y, len(y) // 40)
        self._axes.plot(x, y, linewidth=1.75, **style)
        last = f"{series.name}: {number(series.points[-1][1])}"
        self.draw_dot((x[-1], y[-1]), colour, 6, last)

    def draw_dot(self, point: Point, colour: str, diameter: float, tip: str) -> None:
        """Draw a dot, with a text that shows under the pointer."""
        style = {"mfc": colour, "mec": PAPER, "mew": 1, "clip_on": False, "zorder": 3}
        self._axes.plot(*point, "o", ms=diameter, gid=_tip(tip), **style)

    def draw_labels(self, points: Sequence[Point], labels: Sequence[str]) -> None:
        """Write the texts beside their points, with a line to the point where one is away."""
        from ddgan_jax.viz.label_places import place_labels

        labels = [clean(label) for label in labels]
        dots = self._axes.transData.transform(points).tolist()
        widths = [CHARACTER * len(label) for label in labels]
        boxes = place_labels(dots, widths, self._axes.get_window_extent())
        for point, (left, middle), label, box in zip(points, dots, labels, boxes, strict=True):
            line = {"arrowstyle": "-", "color": SOFT, "shrinkA": 0, "shrinkB": 7}
            beside = box.y0 < middle < box.y1 and min(abs(box.intervalx - left)) < 10
            self._axes.annotate(
                label,
                point,
                (box.x0, box.y0 + 4),
                textcoords="figure points",
                va="baseline",
                arrowprops=None if beside else line,
            )

    def svg(self) -> str:
        """Return the chart as an element for a page."""
        content = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        # A date and a version of matplotlib would change the bytes of the same chart.
        self._figure.savefig(content, format="svg", metadata=nothing)
        root = ElementTree.fromstring(content.getvalue())
        for node in list(root.iter()):
            node.tag = node.tag.removeprefix(SVG)
            if LINK in node.attrib:
                node.set("href", node.attrib.pop(LINK))
            if node.tag == "g":  # the names of shapes stay, since others refer to them
                name = node.attrib.pop("id", "")
                if name.startswith(TIP):
                    node.insert(0, ElementTree.Element("title"))
                    node[0].text = name.removeprefix(TIP)
        root.attrib = {"class": "chart", "viewBox": "0 0 {} {}".format(*self._size)}
        root.attrib |= {"role": "img", "aria-label": clean(self._title)}
        root.remove(root[0])  # matplotlib's style, which would hold for the whole page
        return ElementTree.tostring(root, encoding="unicode").strip()

    def file(self, form: str) -> bytes:
        """Return the chart as a PNG or PDF file, on white paper."""
        return figure_files.encoded(self._figure, form, clean(self._title), dpi=FILE_DPI)

    def _draw_legend(self, entries: Sequence[str], columns: int, place: Point) -> None:
        from matplotlib.lines import Line2D

        colours = [SERIES[i % len(SERIES)] for i in range(len(entries))]
        dots = [Line2D([], [], marker="o", ls="", ms=8, mfc=c, mec=PAPER, mew=0) for c in colours]
        if entries:
            draw_legend(self._figure, dots, entries, columns, place)


def _set_numbers(
    axes: "Axes", name: Literal["x", "y"], ticks: list[float], texts: list[str], log: bool
) -> None:
    """Make an axis reach from the first of these numbers to the last one."""
    axes.set(**{f"{name}scale": "log" if log else "linear", f"{name}lim": (ticks[0], ticks[-1])})
    axes.set(**{f"{name}ticks": ticks, f"{name}ticklabels": texts})
    axes.minorticks_off()


def _tip(text: str) -> str:
    """Return the name for a shape under which the pointer shows the text."""
    return TIP + clean(text)
