"""Line and scatter charts as SVG text, for light and for dark pages.

Every axis is affine, in the values or in their logarithms, between two round numbers that
enclose all data:

    position(v) = start + (end - start) (f(v) - f(low)) / (f(high) - f(low)),   f = id, log10  (1)

A chart takes its colours from STYLE, which a page holds once; `standalone` makes a file of it.
"""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ddgan_jax.errors import printable
from ddgan_jax.viz.chart_data import Point, log_ticks, number, round_ticks, running_mean, thinned

LINES, DOTS = (480, 260), (760, 440)  # width and height of both kinds, in their own units
LEFT, RIGHT, BOTTOM, TOP = 56, 18, 42, 30  # margins; legends add to the last one
ROW = 17  # height of a line of text
CHARACTER = 6.7  # mean width of one at 12 px, to place what no browser has measured yet
COLOURS = 6
AWAY = (0, 8, 22, 38, 56)  # of a label from its dot, the nearest tried first
SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))  # right, left, above
NOISY_FROM = 60  # points, from which a line is drawn faintly, with its running mean

Size = tuple[int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom

STYLE = """
.chart { --ink: #1d2433; --soft: #667085; --rule: #e4e7ec; --paper: #ffffff;
  --c0: #2563b8; --c1: #c2570c; --c2: #2d7d46; --c3: #7c4db8; --c4: #b8325e; --c5: #0e7490; }
@media (prefers-color-scheme: dark) {
  .chart { --ink: #e6e9ef; --soft: #98a2b3; --rule: #333a47; --paper: #171b22;
    --c0: #6ea8fe; --c1: #f0a35e; --c2: #6cc48a; --c3: #b79af0; --c4: #f08aa8; --c5: #5cc8d8; } }
.chart { display: block; width: 100%; height: auto; }
.chart text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.chart .title { font-size: 13px; font-weight: 600; fill: var(--ink); }
.chart .label, .chart .legend { fill: var(--ink); }
.chart .paper { fill: var(--paper); }
.chart .rule { stroke: var(--rule); }
.chart .leader { stroke: var(--soft); }
.chart .line { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.chart .faint { stroke-width: 1; opacity: 0.3; }
.chart .mark { stroke: var(--paper); stroke-width: 1; }
""" + "".join(
    f".chart .line.c{i} {{ stroke: var(--c{i}); }} .chart .mark.c{i} {{ fill: var(--c{i}); }}\n"
    for i in range(COLOURS)
)


class Series(NamedTuple):
    """Points of one colour. labels: what is written beside each of them, none in line charts."""

    name: str
    points: Sequence[Point]
    labels: Sequence[str] = ()


class Axis(NamedTuple):
    """One axis: its round numbers, the first and last of which are its ends, and where it lies."""

    ticks: Sequence[float]
    start: float
    end: float
    log: bool = False

    def position(self, value: float) -> float:
        """Equation 1."""
        f = math.log10 if self.log else float
        low, high = f(self.ticks[0]), f(self.ticks[-1])
        return self.start + (self.end - self.start) * (f(value) - low) / (high - low)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str = "",
    y: str = "",
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """A line for each series through its points, in the order given; the legend has its last value.

    x, y: what stands beside the axes. log_x, log_y: logarithmic, for positive values only. Long
    lines are thinned, long noisy ones drawn with their running mean. Raises ValueError without
    points, or for a value that has no place on its axis.
    """
    entries = [f"{s.name} {number(s.points[-1][1])}" if s.points else s.name for s in series]

    def draw(axes: tuple[Axis, Axis], colour: int, s: Series) -> Iterable[str]:
        noisy = len(s.points) > NOISY_FROM
        yield _line(axes, thinned(s.points), colour, " faint" if noisy else "", s.name)
        line = s.points
        if noisy:
            line = running_mean(s.points, len(s.points) // 40)
            yield _line(axes, thinned(line), colour, "", s.name)
        yield _mark(axes, line[-1], colour, 3, f"{s.name}: {number(s.points[-1][1])}")

    return _chart(LINES, series, draw, entries, title, (x, y), (log_x, log_y))


def scatter_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str = "",
    y: str = "",
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """A dot for each point, labelled where there is room; a legend if there are several series.

    Arguments and errors are those of `line_chart`.
    """
    taken: list[Box] = []

    def draw(axes: tuple[Axis, Axis], colour: int, s: Series) -> Iterable[str]:
        if not taken:  # no label on any dot, whatever its series
            taken.extend(_around(*_place(axes, p), 6) for other in series for p in other.points)
        for i, point in enumerate(s.points):
            label = s.labels[i] if i < len(s.labels) else ""
            tip = f"{label or s.name}: {number(point[0])}, {number(point[1])}"
            yield _mark(axes, point, colour, 5, tip)
            if label:
                yield _label(axes, label, _place(axes, point), taken)

    names = [s.name for s in series] if len(series) > 1 else []
    return _chart(DOTS, series, draw, names, title, (x, y), (log_x, log_y))


def standalone(chart: str) -> str:
    """The text of an SVG file that shows the chart alone, on its own paper."""
    head, _, rest = chart.partition(">")
    size = head.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    space = f'{head} xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}">'
    paper = f'<rect class="paper" width="{size[0]}" height="{size[1]}"/>'
    return f"{space}<style>{STYLE}</style>{paper}{rest}\n"


# --------------------------------------------------------------------------------------- drawing


def _chart(
    size: Size,
    series: Sequence[Series],
    draw: Callable[[tuple[Axis, Axis], int, Series], Iterable[str]],
    entries: Sequence[str],
    title: str,
    names: tuple[str, str],
    logs: tuple[bool, bool],
) -> str:
    values = [[point[i] for s in series for point in s.points] for i in range(2)]
    if not values[0]:
        raise ValueError("a chart needs points")
    right = size[0] - RIGHT
    legend, rows = _legend(entries, right)
    height = size[1] + ROW * (rows - 1)
    ends = ((LEFT, right), (height - BOTTOM, TOP + ROW * rows))
    across, up = (
        Axis((log_ticks if log else round_ticks)(min(v), max(v)), *end, log)
        for v, end, log in zip(values, ends, logs, strict=True)
    )
    return "\n".join(
        [
            f'<svg class="chart" viewBox="0 0 {size[0]} {height}" role="img" '
            f'aria-label="{_escaped(title)}">',
            _text(LEFT, 17, title, 'class="title"'),
            legend,
            *_rules(across, up, height, names),
            *(part for i, s in enumerate(series) if s.points for part in draw((across, up), i, s)),
            "</svg>",
        ]
    )


def _rules(across: Axis, up: Axis, height: int, names: tuple[str, str]) -> Iterable[str]:
    """Horizontal rules, the numbers of both axes and what they are."""
    for tick in up.ticks:
        y = up.position(tick)
        yield (
            f'<line class="rule" x1="{across.start}" x2="{across.end}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        yield _text(across.start - 6, y + 4, number(tick), 'text-anchor="end"')
    for tick in across.ticks:
        x = across.position(tick)
        yield (
            f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{up.start}" y2="{up.start + 4}"/>'
        )
        yield _text(x, up.start + 17, number(tick), 'text-anchor="middle"')
    middle = (across.start + across.end) / 2
    yield _text(middle, height - 8, names[0], 'text-anchor="middle"')
    if names[1]:
        y = (up.start + up.end) / 2
        yield _text(
            0, 0, names[1], f'text-anchor="middle" transform="translate(13 {y}) rotate(-90)"'
        )


def _legend(entries: Sequence[str], right: float) -> tuple[str, int]:
    """The swatches with their names, and how many rows they take."""
    parts, x, row = [], LEFT, min(len(entries), 1)
    for colour, entry in enumerate(entries):
        width = 28 + CHARACTER * len(entry)
        if x > LEFT and x + width > right:
            x, row = LEFT, row + 1
        y = TOP + ROW * row - 13
        swatch = f'<circle class="mark c{colour % COLOURS}" cx="{x + 5:.1f}" cy="{y - 4}" r="4.5"/>'
        parts += [swatch, _text(x + 13, y, entry, 'class="legend"')]
        x += width
    return "\n".join(parts), row


def _line(
    axes: tuple[Axis, Axis], points: Sequence[Point], colour: int, extra: str, name: str
) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(axes, point) for point in points))
    return (
        f'<polyline class="line c{colour % COLOURS}{extra}" points="{places}">'
        f"<title>{_escaped(name)}</title></polyline>"
    )


def _mark(axes: tuple[Axis, Axis], point: Point, colour: int, radius: float, tip: str) -> str:
    x, y = _place(axes, point)
    return (
        f'<circle class="mark c{colour % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
        f"<title>{_escaped(tip)}</title></circle>"
    )


def _label(axes: tuple[Axis, Axis], text: str, at: Point, taken: list[Box]) -> str:
    """The text beside a dot, nearest where it covers nothing in `taken`, which grows by it.

    Where there is no room beside the dot, a line leads to it.
    """
    x, y = at
    width = CHARACTER * len(text)
    boxes = []
    for away in AWAY:
        lefts = {1: x + 9 + away, -1: x - 9 - away - width, 0: x - width / 2}
        middles = {1: y + 7 + away, -1: y - 7 - away, 0: y}
        places = [(lefts[i], middles[j]) for i, j in (SIDES if away else SIDES[:2])]
        boxes += [(left, mid - 8, left + width, mid + 8) for left, mid in places]
    inside = [box for box in boxes if _inside(axes, box)] or boxes
    free = [box for box in inside if not any(_overlap(box, other) for other in taken)]
    box = (free or inside)[0]
    taken.append(box)
    leader = _leader(at, box) if boxes.index(box) >= 2 else ""
    return leader + _text(box[0], box[1] + 12, text, 'class="label"')


def _leader(at: Point, box: Box) -> str:
    """The line from beside a dot to the nearest point of a box."""
    x, y = at
    end = min(max(x, box[0]), box[2]), min(max(y, box[1] + 2), box[3] - 2)
    part = min(7 / max(math.dist(at, end), 1e-9), 1)
    start = x + part * (end[0] - x), y + part * (end[1] - y)
    (x_1, y_1), (x_2, y_2) = start, end
    return f'<line class="leader" x1="{x_1:.1f}" y1="{y_1:.1f}" x2="{x_2:.1f}" y2="{y_2:.1f}"/>'


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    """Return text without markup, and without characters that XML does not know."""
    return html.escape(printable(text))


def _place(axes: tuple[Axis, Axis], point: Point) -> Point:
    return axes[0].position(point[0]), axes[1].position(point[1])


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _inside(axes: tuple[Axis, Axis], box: Box) -> bool:
    across, up = axes
    return (
        box[0] >= across.start
        and box[2] <= across.end
        and box[1] >= up.end - 10
        and box[3] <= up.start
    )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
