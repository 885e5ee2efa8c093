"""Charts: round numbers around the data, places that are affine in it, text that is escaped."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ddgan_jax.viz import charts
from ddgan_jax.viz.chart_data import log_ticks, number, round_ticks, running_mean, thinned
from ddgan_jax.viz.charts import Axis, Series

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
    marks = [mark for mark in named(parse(chart), "circle") if len(mark)]
    return np.array([[float(mark.get("cx")), float(mark.get("cy"))] for mark in marks])


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
    assert ticks[0] <= span[0] and span[1] <= ticks[-1] and 2 <= len(ticks) <= 9
    assert sorted(set(ticks)) == ticks
    for tick in ticks:
        assert f"{tick:e}"[0] in "125" and float(f"{tick:.0e}") == tick


@pytest.mark.parametrize("log", [False, True])
def test_positions_are_affine(log):
    axis = Axis((1, 10, 100), start=400, end=40, log=log)
    assert (axis.position(1), axis.position(100)) == (400, 40)
    values = np.geomspace(1, 100, 7) if log else np.linspace(1, 100, 7)
    np.testing.assert_allclose([axis.position(v) for v in values], np.linspace(400, 40, 7))


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
    with pytest.raises(ValueError):
        charts.line_chart([Series("a", [(0, 1), (1, 2)])], title="t", log_x=True)


# ---- lines


def test_a_thinned_line_keeps_its_extremes_and_its_order():
    y = RNG.normal(size=100_000)
    y[[77, 54_321]] = 50, -50
    points = list(enumerate(y))
    few = thinned(points, 400)
    assert 200 < len(few) <= 400 and sorted(few) == few and set(few) <= set(points)
    assert (77, 50) in few and (54_321, -50) in few
    assert thinned(points[:400], 400) == points[:400]


def test_running_mean_is_that_of_numpy_and_keeps_constants():
    y = RNG.normal(size=50)
    means = running_mean(list(enumerate(y)), 3)
    expected = np.convolve(y, np.ones(7) / 7, "valid")
    np.testing.assert_allclose([m for _, m in means][3:-3], expected)
    np.testing.assert_allclose(means[0][1], y[:4].mean())
    assert [x for x, _ in means] == list(range(50))
    np.testing.assert_allclose(running_mean([(0, 2.0)] * 9, 4), [(0, 2.0)] * 9)


def test_a_long_line_is_faint_with_its_mean_and_a_short_one_is_not():
    short, long = ([(i, float(i % 2)) for i in range(n)] for n in (60, 61))
    for points, classes in ((short, ["line c0"]), (long, ["line c0 faint", "line c0"])):
        chart = charts.line_chart([Series("loss", points)], title="t")
        assert [line.get("class") for line in named(parse(chart), "polyline")] == classes


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


def test_labels_cover_neither_dots_nor_each_other_where_there_is_room():
    points = [(x, y) for x in (1, 1.3, 1.6) for y in (1, 1.1)]
    chart = charts.scatter_chart(
        [Series("a", [*points, (9, 9)], [f"run {i}, 4 steps" for i in range(7)])], title="t"
    )
    labels = [t for t in named(parse(chart), "text") if t.get("class") == "label"]
    boxes = [(float(t.get("x")), float(t.get("y")), len(t.text) * charts.CHARACTER) for t in labels]
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
