"""The page of a run: every number on it, nothing outside it, whatever state the folder is in."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ddgan_jax import cli
from ddgan_jax.config import run_config
from ddgan_jax.config.files import leaves
from ddgan_jax.errors import UserError
from ddgan_jax.files.run_folder import MetricsLine, RunFolder
from ddgan_jax.images import write_png
from ddgan_jax.training import machine
from ddgan_jax.viz import report_data, report_page
from tests.methods import config_of

pytestmark = pytest.mark.quick

EVIL = '<script>alert("1")</script>&<img src=x onerror=alert(1)>'
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, its text, and the tags left open at its end."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("hr", "img", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


def page(folder) -> Page:
    return Page(report_page.render(report_data.read(folder)))


def evaluation(**changes):
    return {
        "metrics": {"fid": 5.4321, "recall": 0.5678},
        "samples": {"count": 50_000, "images": "samples of runs/x, step 30 (ema)"},
        "features": {"network": "inception", "protocol": "tf1", "weights_sha256": "ab" * 32},
        "reference": {"dataset": "cifar10", "count": 50_000, "file": None},
        "model": {"folder": "runs/x", "step": 30, "sha256": "cd" * 32},
        "sampling": {"denoising_steps": 4, "seconds_per_100_images": 0.217, "device": "1 x V100"},
        "written_by": {"ddgan_jax": "0.1.0"},
    } | changes


@pytest.fixture
def run(tmp_path):
    """A run of 30 of 40 steps in two processes, with everything that a folder can hold."""
    folder = tmp_path / "a run"
    files = RunFolder.at(folder)
    run_config.write_config(
        files, config_of("siddm", train__num_steps=40, data__dir="/home/somebody/sets")
    )
    rng = np.random.default_rng(0)
    for first in (0, 20):
        files.drop_metrics_from(first + 1, report=print)
        for step in (first + 10, first + 20):
            speed = {"images_per_second": rng.uniform(200, 300)} if step > first + 10 else {}
            losses = {name: rng.normal() for name in ("d_loss_real", "g_loss", "d_gradient_norm")}
            files.append_metrics(MetricsLine(step, 1.7e9 + step, losses | speed))
    files.append_metrics(MetricsLine(40, 1.7e9 + 40, {"eval/fid_5000": 12.345}))
    for step in (20, 40):
        write_png(folder / "samples" / f"step_{step}.png", np.full((600, 600, 1), step, np.uint8))
    write_png(folder / "samples" / "trajectory_40.png", np.zeros((80, 20, 1), np.uint8))
    (folder / "best" / "checkpoints" / "20").mkdir(parents=True)
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "step_40.json").write_text(json.dumps(evaluation()))
    machine.record(files, 0)
    machine.record(files, 20)
    return folder


# ---- what is on it


def test_the_numbers_of_the_run_are_on_the_page(run):
    text = page(run).text
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name in line.keys() - {"time"}:
            assert f"{line[name]:.6g}" in text and name.removeprefix("eval/") in text
    for name, value in leaves(report_data.read(run).config):
        if name not in report_page.NOT_SHOWN:
            assert name.rpartition(".")[2] in text and str(value) in text
    assert "/home/somebody" not in text
    assert (
        "best checkpoint step 20" in text
        and "complete" in text
        and "SIDDM on digits" in text
        and "a run" in text
    )


def test_an_evaluation_says_what_its_numbers_mean(run):
    text = page(run).text
    for part in ("5.4321", "0.5678", "count: 50000", "protocol: tf1", "network: inception"):
        assert part in text
    for part in ("dataset: cifar10", "abababababababab…", "0.217", "1 x V100", "cd" * 32):
        assert part in text
    assert "None" not in text.partition("Samples over time")[0]


def test_a_machine_for_each_start(run):
    starts = report_data.read(run).starts
    assert [start.step for start in starts] == [0, 20]
    text = page(run).text
    assert f"{starts[0].devices} × {starts[0].device_kind}" in text
    assert starts[0].jax in text


def test_grids_are_on_it_the_newest_twice_and_none_larger_than_needed(run):
    sources = [attributes["src"] for attributes in page(run).all("img")]
    assert len(sources) == len(set(sources)) == 4  # the newest as it is, and shrunk
    write_png(run / "samples" / "step_41.png", np.zeros((64, 64, 3), np.uint8))
    sources = [attributes["src"] for attributes in page(run).all("img")]
    assert (len(sources), len(set(sources))) == (5, 4)
    assert (run / "samples" / "trajectory_40.png").exists()
    assert [a["alt"] for a in page(run).all("img")][-1] == "step 40"


def test_of_many_grids_and_lines_some_are_shown_evenly():
    values = list(range(1_000))
    few = report_page.evenly(values, 12)
    assert (few[0], few[-1], len(few)) == (0, 999, 12)
    assert max(np.diff(few)) - min(np.diff(few)) <= 1
    assert report_page.evenly(values[:12], 12) == values[:12]


def test_the_command_puts_it_into_the_run_folder_and_replaces_it(run, tmp_path, capsys):
    for _ in range(2):
        assert cli.main(["report", f"--workdir={run}"]) == 0
    assert "<title>SIDDM on digits" in (run / "report.html").read_text()
    assert f"in {run / 'report.html'}" in capsys.readouterr().out
    assert cli.main(["report", f"--workdir={tmp_path / 'misspelled'}"]) == 2
    assert not (tmp_path / "misspelled").exists()


def test_rows_and_columns_of_pictures_are_told(run):
    text = page(run).text
    assert "Classes 0 to" in text and "each with" in text
    assert "a column for each prediction of x₀: from x₂, from x₁" in text


# ---- what is not


def check_alone(parsed: Page) -> None:
    """The page loads nothing, runs nothing, and is whole."""
    assert parsed.open == []
    assert not parsed.all("script") and not parsed.all("link") and not parsed.all("iframe")
    for tag, attributes in parsed.tags:
        for name in ("href", "src", "srcset", "action", "data", "poster", "xlink:href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, name)
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in (attributes.get("style") or "")


def test_the_page_stands_alone(run):
    text = report_page.render(report_data.read(run))
    check_alone(Page(text))
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "http:" not in text and "https:" not in text


def test_malicious_names_are_text(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 41, EVIL: 1.5}) + "\n")
    evil = evaluation(metrics={EVIL: 1.5}, features={EVIL: EVIL}, written_by={EVIL: EVIL})
    (run / "evaluations" / "<b>.json").write_text(json.dumps(evil))
    (run / "machine.jsonl").write_text(json.dumps({"step": 0, "device_kind": EVIL}))
    config = json.loads((run / "config.json").read_text())
    config["data"]["name"] = EVIL
    (run / "config.json").write_text(json.dumps(config))
    whole = run.parent / "<i>"
    run.rename(whole)
    parsed = page(whole)
    check_alone(parsed)
    assert not parsed.all("b") and not parsed.all("i")
    assert parsed.text.count(EVIL) >= 5 and "<b>" in parsed.text and "<i>" in parsed.text
    assert all(set(image) == {"src", "alt"} for image in parsed.all("img"))


def test_templates_escape_what_is_no_markup():
    template = '<p title="{{ evil }}">{{ markup }}{{ evil }}{{ number }}{{ hidden }}</p>'
    page = report_page.environment().from_string(template)
    markup = report_page.Markup("<b>{}</b>").format(EVIL)
    parsed = Page(page.render(evil=f'"{EVIL}"', markup=markup, number=3, hidden="\u202e\x1b"))
    assert [tag for tag, _ in parsed.tags] == ["p", "b"]
    assert parsed.tags[0][1] == {"title": f'"{EVIL}"'}
    assert "".join(parsed.texts) == f'{EVIL}"{EVIL}"3\\u202e\\x1b'


# ---- folders in every state


def test_a_run_that_has_just_begun(tmp_path):
    run_config.write_config(RunFolder.at(tmp_path / "new"), config_of("ddgan"))
    parsed = page(tmp_path / "new")
    check_alone(parsed)
    for text in (
        "step 0 of 2",
        "None yet",
        "Nothing is logged",
        "Nothing is drawn",
        "Not recorded",
    ):
        assert text in parsed.text


def test_torn_lines_and_files_are_left_out(run):
    whole = report_data.read(run)
    for name in ("metrics.jsonl", "machine.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 50, "g_lo')
    (run / "evaluations" / "torn.json").write_text('{"metr')
    torn = report_data.read(run)
    assert torn._replace(left_out=whole.left_out) == whole
    assert [line.split(" (")[0] for line in torn.left_out] == [
        "skipped what is no line of a log in metrics.jsonl: line 6",
        "skipped an evaluation: evaluations/torn.json is not JSON",
        "skipped what is no line of a log in machine.jsonl: line 3",
    ]
    assert all(line in page(run).text for line in torn.left_out)


def test_numbers_of_one_step_are_one_line(run):
    lines = report_data.read(run).lines
    assert [line.step for line in lines] == [10, 20, 30, 40]
    assert {"g_loss", "eval/fid_5000"} <= lines[-1].metrics.keys()


def test_the_folder_is_only_read(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    page(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "there is no folder"),
        (lambda run: (run / "config.json").unlink(), "is no run folder of `ddgan train`"),
        (lambda run: (run / "config.json").write_text("{"), "config.json: this is not a config"),
    ],
)
def test_folders_that_are_no_runs(run, damage, message, capsys):
    damage(run)
    with pytest.raises(UserError, match=message):
        report_data.read(run)
    assert cli.main(["report", f"--workdir={run}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- time


def test_training_time_counts_no_pauses():
    """Batches of 10 at 100 and at 200 images a second; each process's first line has no speed."""
    speed = "images_per_second"
    lines = [
        MetricsLine(100, 50.0, {}),
        MetricsLine(200, 60.0, {speed: 100.0}),
        MetricsLine(300, 70.0, {speed: 100.0}),
        MetricsLine(400, 9_000.0, {}),
        MetricsLine(500, 9_005.0, {speed: 200.0}),
    ]
    assert report_data.training_seconds(lines, 10) == pytest.approx(10 + 10 + 10 + 10 + 5)
    assert report_data.training_seconds(lines[:1], 10) == 0


# ---- in a browser


def test_the_command_writes_the_page(run, tmp_path, capsys):
    out = tmp_path / "out" / "report.html"
    assert cli.main(["report", f"--workdir={run}", f"--out={out}"]) == 0
    assert str(out) in capsys.readouterr().out
    check_alone(Page(out.read_text()))


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
def test_a_browser_shows_it_from_disk(run, tmp_path):
    """All pictures decode, all charts have a size, and nothing is wider than a phone's screen."""
    out = tmp_path / "report.html"
    look = (
        "<script>onload = () => { const sized = [...document.querySelectorAll('img, svg')].filter("
        "e => (e.naturalWidth ?? e.getBoundingClientRect().width) > 0).length;"
        "document.title = ['shown', sized, document.body.scrollWidth <= innerWidth].join(' ') }"
        "</script>"
    )
    text = report_page.render(report_data.read(run))
    out.write_text(text.replace("</head>", f"{look}</head>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-sync"]
    command += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=500,900", "--dump-dom", Path(out).as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    parsed = Page(text)
    pictures = len(parsed.all("img")) + len(parsed.all("svg"))
    assert pictures >= 7
    assert f"<title>shown {pictures} true</title>" in shown
