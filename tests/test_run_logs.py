"""Logs, results and statistics that somebody else wrote, or a kill tore: what can be read is used.

Generators are seeded; `tests.hostile` knows the damage.
"""

import ast
import json
import math
import os
import random
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from ddgan_jax.config import LARGEST
from ddgan_jax.config.run_config import write_config
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import scorer
from ddgan_jax.evaluation.gather import Gathered
from ddgan_jax.files import run_folder
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.images import write_png
from ddgan_jax.metrics import statistics
from ddgan_jax.viz import axis_numbers, charts, report_data, report_page, tradeoff
from tests import hostile
from tests.methods import config_of
from tests.test_page import Page, check_alone, evaluation

pytestmark = pytest.mark.quick

LINES = [
    {"step": step, "time": 1.7e9 + step, "g_loss": step / 7, "d_logit_real": -step / 3}
    for step in range(1, 9)
]


def as_log(lines) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def damaged(rng, content: bytes) -> bytes:
    return rng.choice(hostile.LINES)(rng, content)


def no_report(line: str) -> None:
    raise AssertionError(line)


# ---- lines of a log


def test_the_names_of_a_run_folders_files_stand_in_one_module():
    """Other modules may name them to people, in docstrings, but never build a path of them."""
    own = {"metrics.jsonl", "machine.jsonl", "origin.json", "evaluations", "jax_cache"}
    own |= {"interval.json", "trackers.json"}
    package = Path(run_folder.__file__).parents[1]
    found = {
        (str(path.relative_to(package)), node.value)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in own
    }
    assert found == {("files/run_folder.py", name) for name in own}


def test_every_step_that_a_config_can_ask_for_is_a_step_of_a_run():
    assert run_folder.MOST_STEPS == LARGEST


def test_whole_lines_are_what_json_says(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(as_log(LINES))
    folder = RunFolder.at(tmp_path)
    found = folder.read_metrics(report=no_report)
    assert [{"step": e.step, "time": e.time, **e.metrics} for e in found] == LINES


def test_skipped_lines_are_named_once_with_file_and_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n[1]\n\n{"step": 2}\n{"step": -1}\n{"ste\n\xff\n{"step": 3, "g')
    for read in (
        lambda report: RunFolder.at(tmp_path).read_metrics(report=report),
        lambda report: lines_before(tmp_path, 3, report),
    ):
        said: list[str] = []
        assert len(read(said.append)) == 2
        [line] = said
        assert str(path) in line and line.endswith("and 2 more")
        assert re.findall(r"line (\d+) \(", line) == ["2", "5", "6"]


def lines_before(folder, step, report=no_report) -> list[bytes]:
    """What a run that resumes before `step` finds in its metrics."""
    RunFolder.at(folder).drop_metrics_from(step, report=report)
    return (folder / "metrics.jsonl").read_bytes().splitlines()


def test_only_numbers_are_metrics(tmp_path):
    values = [True, None, "1", [1], {"a": 1}, 10**301, -(10**301)]
    line = {"step": 4, "time": -1.0, **{f"m{i}": value for i, value in enumerate(values)}}
    (tmp_path / "metrics.jsonl").write_bytes(as_log([line | {"n" * 1000: 1.0, "good": 2}]))
    found = RunFolder.at(tmp_path).read_metrics(report=no_report)
    assert found == [run_folder.MetricsLine(4, None, {"good": 2.0})]


def test_a_resume_keeps_whole_lines_as_they_are(tmp_path):
    """Of 300 damaged logs: only lines of earlier steps, byte by byte, and a second time all."""
    path = tmp_path / "metrics.jsonl"
    for case in range(300):
        rng = random.Random(case)
        content = damaged(rng, as_log(LINES))
        path.write_bytes(content)
        kept = lines_before(tmp_path, 5, report=lambda line: None)
        assert set(kept) <= set(content.split(b"\n"))
        assert path.read_bytes() == b"".join(line + b"\n" for line in kept)
        assert lines_before(tmp_path, 5) == kept
        found = RunFolder.at(tmp_path).read_metrics(report=no_report)
        assert all(line.step < 5 for line in found)


@pytest.mark.parametrize("content", [b"\xff", b"[1]", b'{"provenance": 5}', b'{"a":' * 60_000])
def test_a_damaged_origin_is_named_and_unknown(tmp_path, content):
    said: list[str] = []
    (tmp_path / "origin.json").write_bytes(content)
    assert RunFolder.at(tmp_path).read_origin(report=said.append) == run_folder.Origin()
    assert len(said) == 1 and "origin.json" in said[0]


# ---- the page


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    write_config(RunFolder.at(folder), config_of("ddgan"))
    (folder / "metrics.jsonl").write_bytes(as_log(LINES))
    start = {"step": 0, "time": 1.7e9, "devices": 2, "device_kind": "x", "platform": "cpu"}
    (folder / "machine.jsonl").write_bytes(as_log([start, start | {"step": 4}]))
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "a.json").write_text(json.dumps(evaluation()))
    write_png(folder / "samples" / "step_4.png", np.zeros((9, 9, 3), np.uint8))
    return folder


def check_page(folder) -> Page:
    """The page is whole, loads nothing, and its charts are XML with numbers only."""
    text = report_page.render(report_data.read(folder))
    text.encode()
    parsed = Page(text)
    check_alone(parsed)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        check_svg(svg)
    return parsed


def check_svg(svg: str) -> None:
    for node in ElementTree.fromstring(svg).iter():
        assert node.tag.rpartition("}")[2] in (
            *("svg", "g", "text", "path", "defs", "use", "title", "style", "rect"),
        )
        values = [node.get(name, "0").rstrip("%") for name in ("x", "y", "width", "height")]
        values += [value for value in node.get("d", "").split() if value not in "MLCQz"]
        assert all(math.isfinite(float(value)) for value in values), svg


@pytest.mark.parametrize("name", ["metrics.jsonl", "machine.jsonl", "evaluations/a.json"])
def test_pages_of_damaged_files(run, name):
    """100 of each: the page is there and says what it left out."""
    if name != "metrics.jsonl":
        (run / "metrics.jsonl").unlink()  # its charts would take most of the time
    path = run / name
    whole = path.read_bytes()
    for case in range(100):
        rng = random.Random(case)
        kinds = hostile.JSON if name.endswith(".json") else hostile.LINES
        path.write_bytes(rng.choice(kinds)(rng, whole))
        parsed = check_page(run)
        assert all(tag != "script" for tag, _ in parsed.tags)


def test_pages_of_damaged_pictures(run):
    (run / "metrics.jsonl").unlink()
    path = run / "samples" / "step_4.png"
    whole = path.read_bytes()
    for case in range(100):
        rng = random.Random(case)
        path.write_bytes(rng.choice(hostile.BINARY)(rng, whole))
        parsed = check_page(run)
        assert parsed.all("img") or re.search("Left out: .*step_4.png", parsed.text)


def test_pipes_devices_folders_and_bombs_are_left_out(run):
    for name in ("metrics.jsonl", "machine.jsonl", "evaluations/a.json", "samples/step_4.png"):
        (run / name).unlink()
    os.mkfifo(run / "metrics.jsonl")
    (run / "machine.jsonl").symlink_to("/dev/zero")
    (run / "evaluations" / "a.json").mkdir()
    (run / "samples" / "step_4.png").symlink_to("/dev/zero")
    os.mkfifo(run / "samples" / "step_5.png")
    header = (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08" + b"\0" * 8
    )
    (run / "samples" / "step_6.png").write_bytes(header)
    (run / "samples" / f"step_{'9' * 200}.png").write_bytes(header)
    text = check_page(run).text
    for name in ("metrics.jsonl", "machine.jsonl", "evaluations/a.json"):
        assert f"{name}: it is no regular file" in text or f"{name}: it is a folder" in text
    assert "step_4.png: it is no regular file" in text and "step_5.png: it is" in text
    assert re.search("Left out: [^:]*step_6.png", text)
    assert str(run) not in text


def test_too_many_of_anything_are_counted(run):
    lines = [{"step": 1, **{f"m{i}": 1.0 for i in range(5_000)}, "eval/fid": 3.0}]
    (run / "metrics.jsonl").write_bytes(as_log(lines))
    for i in range(150):
        (run / "evaluations" / f"b{i:03}.json").write_text(json.dumps(evaluation()))
    text = check_page(run).text
    assert "4,901 of 5,001 metrics are left out" in text and "eval/fid" in text
    assert "skipped the last 51 of 151 evaluations" in text


def test_hidden_characters_are_escaped(run):
    name = "a\u202eb\x1b[2J\ufeffc"
    (run / "metrics.jsonl").write_bytes(as_log([{"step": 1, name: 1.0}]))
    text = report_page.render(report_data.read(run))
    assert not set(name) & set("\u202e\x1b\ufeff") & set(text)
    assert "a\\u202eb\\x1b[2J\\ufeffc" in text


# ---- charts


def test_axes_of_any_numbers():
    """Two ends of every size and distance: a few rising ticks that enclose them."""
    rng = random.Random(0)
    sizes = [0.0, 5e-324, 1e-320, 1e-300, 1e-12, 1.0, 1e16, 1e100, 1e300]
    for case in range(3_000):
        a = rng.choice(sizes) * rng.choice([-1, 1]) * rng.choice([1, rng.random()])
        other = rng.choice(sizes) * rng.choice([-1, 1])
        b = rng.choice([a, math.nextafter(a, 1e308), a * (1 + 1e-12), a * 1.1, other])
        low, high = min(a, b), max(a, b)
        ticks = axis_numbers.round_ticks(low, high)
        assert 2 <= len(ticks) < 12 and ticks == sorted(set(ticks))
        rounding = 1e-8 * (ticks[-1] - ticks[0])
        assert ticks[0] <= low + rounding and high - rounding <= ticks[-1]
        if case % 50 == 0:
            check_svg(charts.line_chart([charts.Series("x", [(1, a), (2, b)])], title="t"))


# ---- results


def test_charts_of_damaged_results(tmp_path):
    """Of 300 damaged results: an SVG file, or one line that names the file."""
    path = tmp_path / "a.json"
    whole = json.dumps(evaluation()).encode()
    ends = {"chart": 0, "line": 0}
    for case in range(300):
        rng = random.Random(case)
        path.write_bytes(rng.choice(hostile.JSON)(rng, whole))
        try:
            result = tradeoff.read(path, "fid")
            check_svg(charts.standalone(tradeoff.chart([result], "fid")))
            ends["chart"] += 1
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            ends["line"] += 1
    assert min(ends.values()) > 30


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("sampling.seconds_per_100_images", text) for text in ("0", "-1", "1e-320", "1e400")),
        *(("sampling.seconds_per_100_images", text) for text in ("true", '"1"', "[]", "NaN")),
        *(("metrics.fid", text) for text in ("NaN", "Infinity", "true", "1" + "0" * 400, "null")),
        *(("model.folder", text) for text in ("5", "[1]")),
        ("features.network", "[1]"),
    ],
)
def test_values_that_cannot_be_drawn(tmp_path, field, value):
    group, _, name = field.partition(".")
    tree = evaluation()
    tree[group][name] = "HERE"
    (tmp_path / "a.json").write_text(json.dumps(tree).replace('"HERE"', value))
    with pytest.raises(UserError, match="a.json.*: it is no result file of `ddgan evaluate`$"):
        tradeoff.read(tmp_path / "a.json", "fid")


def test_a_name_is_a_pattern_only_if_nothing_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].json", "a1.json", "b,c.json"):
        (tmp_path / name).write_text(json.dumps(evaluation()))
    (tmp_path / "r[2]" / "evaluations").mkdir(parents=True)
    (tmp_path / "r[2]" / "evaluations" / "x.json").write_text(json.dumps(evaluation()))
    found = {
        names: [path.name for path in tradeoff.find(names)]
        for names in ("a[1].json", "a1.json,r[2]", "b,c.json", "a*.json")
    }
    assert found == {
        "a[1].json": ["a[1].json"],
        "a1.json,r[2]": ["a1.json", "x.json"],
        "b,c.json": ["b,c.json"],
        "a*.json": ["a1.json", "a[1].json"],
    }


# ---- statistics


def changed(rng, array: np.ndarray):
    """Another array in the place of one: of another shape, type, or with numbers at their ends."""
    numbers = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 1e200, 5e-324, -1.0, 0.0])
    match rng.randrange(6):
        case 0:
            result = np.array(array, np.float64)
            result.flat[rng.randrange(max(1, result.size))] = rng.choice(numbers)
            return result
        case 1:
            return rng.choice([array[None], array.ravel()[:-1], np.zeros(0), np.zeros((0, 0))])
        case 2:
            types = [np.int64, np.complex128, np.float16, bool, "U9", np.uint8]
            with np.errstate(all="ignore"):
                return array.astype(rng.choice(types))
        case 3:
            return -np.asarray(array, np.float64) - 3
        case 4:
            return np.asarray(array, np.float64) * rng.choice([1e300, 1e-300, 1e150, 0])
        case _:
            return np.array(rng.choice(["x", "[]", '{"protocol": 5}', "[" * 10_000]))


@pytest.mark.filterwarnings("ignore:overflow")
def test_statistics_that_load_give_numbers(tmp_path):
    """Of 400 changed files: a finite distance, or one line; never a wrong number in silence."""
    rng, path = random.Random(0), tmp_path / "x.npz"
    vectors = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    stats = statistics.add(statistics.empty(3), vectors)
    provenance = statistics.Provenance("none", "none", "x", "y", "pixels")
    statistics.save(path, stats, provenance, vectors)
    with np.load(path) as file:
        whole = dict(file)
    fake = Gathered(stats, vectors, None, None)
    ends = {"number": 0, "line": 0}
    for _ in range(400):
        name = rng.choice([*whole])
        if whole[name].dtype.kind == "U":
            new = np.array(rng.choice(["x", "[]", '{"protocol": 5}', "[" * 10_000]))
        else:
            new = changed(rng, np.atleast_1d(whole[name]) if name == "n" else whole[name])
        np.savez(path, **{**whole, name: new})
        try:
            found = statistics.load(path)
            values = scorer.compute(["frechet", "prdc"], fake, found)
            assert all(map(math.isfinite, values.values()))
            ends["number"] += 1
        except UserError as error:
            assert "\n" not in str(error)
            ends["line"] += 1
    assert ends["line"] > 200 and ends["number"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": np.array([[1, 2, 0], [0, 1, 0], [0, 0, 1.0]])}, "sigma is not symmetric"),
        ({"sigma": np.diag([1, 1, -0.1])}, "some direction has a negative variance"),
        ({"sigma": np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]])}, "a negative variance"),
        ({"sigma": np.full((3, 3), np.inf)}, "sigma holds what is no finite number"),
        ({"mu": np.zeros(2)}, "are not of one dimension"),
        ({"features": np.zeros((9, 2), np.float32)}, "are not of one dimension"),
        ({"features": np.zeros((99, 3), np.float32)}, "99 features of 40 images"),
        ({"n": 1}, "n is no number of images"),
        ({"n": 40.0}, "n is no number of images"),
    ],
)
def test_what_is_no_mean_and_covariance(tmp_path, change, message):
    provenance = json.dumps(statistics.Provenance("none", "none", "x", "y", "pixels")._asdict())
    whole = {"mu": np.zeros(3), "sigma": np.eye(3), "n": 40, "provenance": provenance}
    path = tmp_path / "x.npz"
    np.savez(path, **{**whole, "features": np.zeros((9, 3), np.float32), **change})
    with pytest.raises(UserError, match=message):
        statistics.load(path)
    np.savez(path, **{**whole, "features": np.zeros((9, 3), np.float32), "sigma": np.zeros((3, 3))})
    assert statistics.load(path).count == 40  # images that are all the same
