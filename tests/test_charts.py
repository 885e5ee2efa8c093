"""Charts: round numbers around the data, places that are affine in it, text that is escaped."""

import math
import os
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ddgan_jax.errors import printable
from ddgan_jax.viz import charts
from ddgan_jax.viz.axis_numbers import distinct, log_ticks, number, round_ticks
from ddgan_jax.viz.charts import CHARACTER, Series, running_mean

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)
SPANS = [tuple(sorted(RNG.normal(size=2) * 10 ** RNG.uniform(-6, 6))) for _ in range(200)]
EVIL = "<script>alert(\"1\")</script> & <b title='x'>"


def parse(chart: str) -> ET.Element:
    return ET.fromstring(charts.standalone(chart))


def named(root: ET.Element, tag: str) -> list[ET.Element]:
    return list(root.iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def dots(chart: str) -> np.ndarray:
    """Where the marks of a scatter chart lie; those of its legend have no title."""
    groups = [group for group in named(parse(chart), "g") if len(group) and group[0].text]
    marks = [mark for group in groups if "title" in group[0].tag for mark in named(group, "use")]
    return np.array([[float(mark.get("x")), float(mark.get("y"))] for mark in marks])


def lines(chart: str) -> list[tuple[np.ndarray, str]]:
    """The corners of each series' lines, and their style."""
    found = []
    for group in named(parse(chart), "g"):
        if len(group) == 2 and group[0].tag.endswith("title") and group[1].tag.endswith("path"):
            numbers = [
                float(n) for n in group[1].get("d").replace("M", "").replace("L", "").split()
            ]
            found.append((np.reshape(numbers, (-1, 2)), group[1].get("style")))
    return found


# ---- axes


@pytest.mark.parametrize("span", [*SPANS, (0, 1), (-3, 7), (0.1, 0.3), (100, 60_000), (-1e-9, 0)])
def test_round_ticks_enclose_the_data_evenly_and_are_round(span):
    low, high = span
    ticks = round_ticks(low, high)
    steps = np.diff(ticks)
    assert 2 <= len(ticks) <= 8
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert ticks[0] <= low + 1e-6 * steps[0] and high - 1e-6 * steps[0] <= ticks[-1]
    # None could be left out.
    assert ticks[1] > low and ticks[-2] < high
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-6


@pytest.mark.parametrize("value", [0, 0.5, -3, 1e5])
def test_a_single_value_has_an_axis_around_it(value):
    ticks = round_ticks(value, value)
    assert ticks[0] < value < ticks[-1]


@pytest.mark.parametrize(
    "span", [(0.04, 421.5), (1, 1), (3, 3), (1, 10), (0.2, 0.3), (1e-9, 1e9), (2, 1000), (4, 5)]
)
def test_log_ticks_enclose_the_data_and_are_few(span):
    ticks = log_ticks(*span)
    assert ticks[0] <= span[0] and span[1] <= ticks[-1] and 3 <= len(ticks) <= 9
    assert sorted(set(ticks)) == ticks
    for tick in ticks:
        assert f"{tick:e}"[0] in "125" and float(f"{tick:.0e}") == tick


@pytest.mark.parametrize("log", [False, True])
def test_an_axis_reaches_from_its_first_number_to_its_last(log):
    """Points on round numbers at both ends of a line lie at the ends of the axis."""
    both = [Series("a", [(100, 100), (1, 1)]), Series("b", [(1, 1), (100, 100)])]
    chart = charts.line_chart(both, title="t", log_x=log)
    right, bottom = charts.LINES[0] - charts.RIGHT, charts.LINES[1] - charts.BOTTOM
    first, last = dots(chart)
    assert last[0] == pytest.approx(right)
    assert last[1] == pytest.approx(charts.TOP + charts.ROW)
    if log:
        assert first[0] == pytest.approx(charts.LEFT)
    assert bottom > first[1] > bottom - 10


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("points", [[(0.5, 2)], [(0.5, 10), (1, 5)], [(1, 1), (1000, 2)]])
def test_dots_keep_away_from_the_ends_of_their_axes(points, log):
    chart = charts.scatter_chart([Series("a", points)], title="t", about="b", log_x=log, log_y=log)
    for x, y in dots(chart):
        assert charts.LEFT + 10 < x < charts.DOTS[0] - charts.RIGHT - 10
        assert charts.TOP + charts.ROW + 5 < y < charts.DOTS[1] - charts.BOTTOM - 5


@pytest.mark.parametrize("name", ["", "learning rate"])
def test_long_numbers_of_an_axis_are_not_cut_off(name):
    """In the font of the files, whose digits are as wide as those of any other here."""
    series = [Series("a", [(0, 0.000225), (1_234_567.5, 0.0002250001)])]
    with charts.settings("t"):
        chart = charts._Chart(charts.LINES, series, "t", [], ("", name), (False, False))
        box = chart._axes.get_tightbbox()
    assert box.x0 >= 4 and box.x1 <= charts.LINES[0]


def test_numbers_of_an_axis_are_told_apart():
    ticks = round_ticks(0.69314718, 0.69314728)
    assert len(set(distinct(ticks))) == len(ticks) >= 4
    assert distinct([0, 0.5, 1]) == ["0", "0.5", "1"]


@pytest.mark.parametrize(("log_x", "log_y"), [(False, False), (True, False), (True, True)])
def test_dots_are_where_their_numbers_are(log_x, log_y):
    """Affine in both coordinates, whatever the axes; to the tenth of a unit that is written."""
    points = [tuple(p) for p in RNG.uniform(0.5, 80, (12, 2))]
    chart = charts.scatter_chart([Series("a", points)], title="t", log_x=log_x, log_y=log_y)
    places = dots(chart)
    for i, log in enumerate((log_x, log_y)):
        values = np.array(points)[:, i]
        values = np.log(values) if log else values
        slope, offset = np.polyfit(values, places[:, i], 1)
        np.testing.assert_allclose(slope * values + offset, places[:, i], atol=0.06)
        assert (slope > 0) == (i == 0)  # y grows upwards, pages downwards


def test_what_has_no_place_is_an_error():
    with pytest.raises(ValueError, match="points"):
        charts.line_chart([Series("a", [])], title="t")
    with pytest.raises(ValueError, match="no place on a logarithmic axis"):
        charts.line_chart([Series("a", [(0, 1), (1, 2)])], title="t", log_x=True)
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="finite"):
            charts.line_chart([Series("a", [(0, 1), (1, value)])], title="t")


# ---- lines


def test_a_long_line_keeps_its_extremes_in_few_corners():
    y = RNG.normal(size=100_000)
    y[[77, 54_321]] = 50, -50
    chart = charts.line_chart([Series("a", list(enumerate(y)))], title="t")
    (corners, _), (means, _) = lines(chart)
    assert 200 < len(corners) < 5_000 and len(means) < 5_000
    few = charts.line_chart([Series("a", [(0, 50), (99_999, -50)])], title="t")
    (high, low), _ = lines(few)[0]
    assert corners[:, 1].min() == pytest.approx(high[1], abs=0.6)
    assert corners[:, 1].max() == pytest.approx(low[1], abs=0.6)
    assert corners[corners[:, 1].argmin(), 0] == pytest.approx(charts.LEFT, abs=1)


def test_running_mean_is_that_of_numpy_and_keeps_constants():
    y = RNG.normal(size=50)
    means = running_mean(y, 3)
    expected = np.convolve(y, np.ones(7) / 7, "valid")
    np.testing.assert_allclose(means[3:-3], expected)
    np.testing.assert_allclose(means[0], y[:4].mean())
    assert len(means) == 50
    np.testing.assert_allclose(running_mean(np.full(9, 2.0), 4), np.full(9, 2.0))


def test_a_long_line_is_faint_with_its_mean_and_a_short_one_is_not():
    short, long = ([(i, float(i % 2)) for i in range(n)] for n in (60, 61))
    for points, faint in ((short, [False]), (long, [True, False])):
        chart = charts.line_chart([Series("loss", points)], title="t")
        assert ["stroke-opacity: 0.3" in style for _, style in lines(chart)] == faint


# ---- text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.69314, "0.6931"),
        (2500, "2.5k"),
        (300_000, "300k"),
        (1.2e6, "1.2M"),
        (-12, "-12"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_malicious_names_are_text():
    series = [Series(EVIL, [(0, 1), (1, 2)], [EVIL, EVIL])]
    for draw in (charts.line_chart, charts.scatter_chart):
        root = parse(draw(series, title=EVIL, x=EVIL, y=EVIL))
        assert not named(root, "script") and not named(root, "b")
        assert [t.text for t in named(root, "text")].count(EVIL) >= 3
        assert root.get("aria-label") == EVIL


@pytest.mark.parametrize(
    "name", ["$x^2$", "$\\frac{$", "_hidden", "a\nb", "\x00\x1b[2J", "\ud800", "图像"]
)
def test_names_are_shown_as_they_are(name):
    """No mathematics, no line ends, nothing left out; control characters are escaped."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chart = charts.line_chart([Series(name, [(0, 1)])] * 2, title=name, x=name)
    chart.encode()
    texts = [t.text for t in named(parse(chart), "text")]
    expected = printable(" ".join(name.split()))
    assert texts.count(expected) == 2 and texts.count(f"{expected} 1") == 2


def test_labels_cover_neither_dots_nor_each_other_where_there_is_room():
    points = [(x, y) for x in (1, 1.3, 1.6) for y in (1, 1.1)]
    chart = charts.scatter_chart(
        [Series("a", [*points, (9, 9)], [f"run {i}, 4 steps" for i in range(7)])], title="t"
    )
    labels = [t for t in named(parse(chart), "text") if t.text.startswith("run ")]
    boxes = [(float(t.get("x")), float(t.get("y")), len(t.text) * CHARACTER) for t in labels]
    assert len(boxes) == 7
    for i, (x, y, width) in enumerate(boxes):
        for cx, cy in dots(chart):
            assert not (x < cx < x + width and y - 12 < cy < y + 4)
        for other_x, other_y, other_width in boxes[:i]:
            apart = x >= other_x + other_width or other_x >= x + width or abs(y - other_y) >= 15.9
            assert apart


def test_a_file_loads_nothing_and_knows_dark_pages():
    text = charts.standalone(charts.line_chart([Series("a", [(0, 1)])], title="t"))
    assert text.count("http") == 1 and "prefers-color-scheme: dark" in text  # the namespace
    assert parse(charts.line_chart([Series("a", [(0, 1)])], title="t")).get("width") == "480"


def test_charts_are_reproducible_whatever_the_users_settings(tmp_path):
    """The same bytes in another process with another matplotlibrc; and no settings are left."""
    program = (
        "import sys; from ddgan_jax.viz import charts; import matplotlib;"
        "before = matplotlib.rcParams.copy();"
        "chart = charts.line_chart([charts.Series('a', [(0, 1), (3, 2)])], title='t');"
        "assert dict.__eq__(before, matplotlib.rcParams.copy());"
        "assert 'matplotlib.pyplot' not in sys.modules;"
        "print(chart)"
    )
    (tmp_path / "matplotlibrc").write_text(
        "lines.linewidth: 9\nfont.size: 30\nsvg.fonttype: path\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"MATPLOTLIBRC": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == charts.line_chart([Series("a", [(0, 1), (3, 2)])], title="t") + "\n"


def test_each_colour_of_a_chart_has_another_on_dark_pages():
    points = [(x, x) for x in range(1, 8)]
    series = [Series(str(i), points, ["label"] * 7) for i in range(7)]
    for draw in (charts.line_chart, charts.scatter_chart):
        chart = charts.standalone(draw(series, title="t", x="x", y="y"))
        drawn = re.findall("(fill|stroke): (#[0-9a-f]+)", chart.partition("</style>")[2])
        assert len(drawn) > 20
        for part, colour in drawn:
            assert f'[style*="{part}: {colour}"] {{ {part}: {charts.DARK[colour]} ' in charts.STYLE
    assert not {*charts.DARK} & {*charts.DARK.values()}
