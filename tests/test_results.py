"""The page of results: means by hand, what is missing, and that page and plots are the results'.

The numbers that the tests write are made up.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.results import claims, mixture, page, plots, records, short
from benchmarks.results.drawing import description
from benchmarks.results.short import short_number
from benchmarks.results.spread import count_of, over_seeds
from ddgan_jax.cli.arguments import parse_seeds
from ddgan_jax.cli.experiments import COMMANDS
from ddgan_jax.errors import UserError
from ddgan_jax.experiments.claims_rows import TABLES
from ddgan_jax.experiments.mog25_cells import PAPER
from tests.made_up_results import numbers, write_all, write_cells, write_mnist, write_row

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
TEMPLATE = ROOT / "docs" / "results.template.md"


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """Return the cells of the first table in a text, by row and column."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


# ---- numbers


def test_mean_and_deviation_by_hand():
    assert over_seeds([1.0, 2.0, 3.0], ".1f") == "2.0 ± 1.0"
    assert over_seeds([None, 2.0], ".1f") == "2.0"
    assert over_seeds([]) == over_seeds([None]) == "-"
    assert over_seeds([0.9, 1.0], ".0%") == "95% ± 7%"


@pytest.mark.parametrize(
    ("value", "text"),
    [(5298.248, "5,298"), (12.345, "12.3"), (0.4567, "0.457"), (0.00012, "0.0001"), (0.0, "0.00")],
)
def test_three_digits_count(value, text):
    assert over_seeds([value]) == text


def test_seeds_that_are_missing_or_gone_are_counted():
    assert count_of(0, 3, 0) == "not measured"
    assert count_of(2, 3, 0) == "2 of 3"
    assert count_of(3, 3, 1) == "3, 1 diverged"


def test_seeds_are_those_of_the_command():
    default = {flag.name: flag.default for flag in COMMANDS["experiment claims"].flags}["seeds"]
    assert len(parse_seeds(default, most=100)) == claims.SEEDS


# ---- tables


def test_row_is_the_mean_over_its_seeds_without_those_that_diverged(tmp_path):
    for seed, modes in enumerate((990, 1000)):
        write_row(tmp_path, "stacked_ddgan", "T4", seed, {4: numbers(modes=modes, kl=0.25)})
    write_row(tmp_path, "stacked_ddgan", "T4", 2, {})
    write_row(tmp_path, "stacked_ddgan", "T2", 0, {2: numbers(modes=3)})
    results = records.read(tmp_path, TABLES)
    text = claims.section(TABLES["stacked_ddgan"], "stacked_ddgan", results)
    rows = rows_of(text)
    assert list(rows) == [row.title for row in TABLES["stacked_ddgan"].rows.values()]
    assert rows["T = 4"]["modes"] == "995.0 ± 7.1"
    assert rows["T = 4"]["KL"] == "0.250 ± 0.000"
    assert rows["T = 4"]["seeds"] == "3, 1 diverged"
    assert rows["T = 4"]["paper, CIFAR-10"] == TABLES["stacked_ddgan"].rows["T4"].paper
    assert (rows["T = 2"]["seeds"], rows["T = 2"]["modes"]) == ("1 of 3", "3.0")
    assert (rows["T = 8"]["seeds"], rows["T = 8"]["modes"]) == ("not measured", "-")
    assert "100 steps of 32 images, 26,000 samples of each model" in text
    assert "made-up processor, 1 core; commit `0123456789ab`; 2.0 CPU hours" in text
    # 999 / 52,000: what even a perfect sampler has.
    assert "with a KL of 0.019" in text
    assert "\nddgan experiment claims --tables=stacked_ddgan --rows=T2 --seeds=0 --out" in text


def test_other_numbers_of_steps_have_rows_of_their_own(tmp_path):
    found = {steps: numbers(kl=steps / 4) for steps in (1, 2, 4, 8)}
    write_row(tmp_path, "stacked_siddm", "default", 0, found)
    results = records.read(tmp_path, TABLES)
    text = claims.section(TABLES["stacked_siddm"], "stacked_siddm", results)
    before, _, after = text.partition("other numbers of steps")
    title = TABLES["stacked_siddm"].rows["default"].title
    assert rows_of(before)[title]["KL"] == "1.00"
    lines = [line.split(" | ") for line in after.splitlines() if title in line]
    assert [line[1] for line in lines] == ["1", "2", "4, as trained", "8"]
    assert [line[4] for line in lines] == ["0.250", "0.500", "1.00", "2.00"]


def test_cells_stand_beside_the_papers(tmp_path):
    write_cells(tmp_path, {("gan", 1): [1e9, None], ("siddm", 4): [0.5, 1.5, 1e9]})
    results = records.read(tmp_path, TABLES)
    lines = [line.split(" | ") for line in mixture.section(results).splitlines()]
    by_key = {(line[0].strip("| "), line[1]): line for line in lines if len(line) > 3}
    assert by_key["SIDDM", "4"][2:4] == ["3 of 5, 1 diverged", "1.00 ± 0.71"]
    assert by_key["SIDDM", "4"][-1] == f"{PAPER['siddm'][4]} |"
    assert by_key["GAN", "1"][2:4] == ["2 of 5, 2 diverged", "-"]
    assert by_key["DDGAN", "8"][2:4] == ["not measured", "-"]
    expected = {(mixture.NAMES[m], str(T)) for m, values in PAPER.items() for T in values}
    assert set(by_key) - {("method", "T"), (":--", "--:")} == expected


def test_checkpoints_are_in_the_order_of_training(tmp_path):
    write_mnist(tmp_path, [(900, 4, 3.0), (9_000, 4, 1.0), (9_000, 2, 2.0)])
    results = records.read(tmp_path, TABLES)
    text = page.render("{{table mnist}} {{hours}}", results, TABLES)
    assert re.findall(r"^\| ([\d,]+) \| (\d) \| 5,000 \| (\d)", text, re.MULTILINE) == [
        ("900", "4", "3"),
        ("9,000", "2", "2"),
        ("9,000", "4", "1"),
    ]
    assert text.count("2.0 CPU hours") == 2


def test_row_that_no_table_has_is_an_error(tmp_path):
    write_row(tmp_path, "stacked_ddgan", "T4", 0, {4: numbers()})
    file = tmp_path / "claims" / "stacked_ddgan_T4_0.json"
    file.write_text(file.read_text().replace('"row": "T4"', '"row": "T5"'))
    with pytest.raises(UserError, match="no table has a row stacked_ddgan T5"):
        records.read(tmp_path, TABLES)


def test_seeds_of_different_size_are_an_error(tmp_path):
    write_row(tmp_path, "stacked_ddgan", "T4", 0, {4: numbers()})
    write_row(tmp_path, "stacked_ddgan", "T4", 1, {4: numbers()}, train_steps=101)
    with pytest.raises(UserError, match="stacked_ddgan T4"):
        records.read(tmp_path, TABLES)


def test_hours_are_the_sum_of_everything(tmp_path):
    write_row(tmp_path, "stacked_ddgan", "T4", 0, {4: numbers()})
    write_cells(tmp_path, {("siddm", 4): [0.5], ("siddm", 2): [0.5]})
    results = records.read(tmp_path, TABLES)
    assert page.render("{{hours}}", results, TABLES) == "2.5 CPU hours"


def test_gaps_in_sentences(tmp_path):
    write_row(tmp_path, "stacked_siddm", "default", 0, {4: numbers(kl=1), 8: numbers(kl=2)})
    write_cells(tmp_path, {("siddm", 4): [0.5, 1.5]})
    results = records.read(tmp_path, TABLES)
    text = (
        "{{claims stacked_siddm default kl}} {{claims stacked_siddm default kl 8}} "
        "{{mog25 siddm 4 frechet}} {{mog25 siddm 8 frechet}} {{claims stacked_ddgan T4 kl}}"
    )
    expected = "1.00 2.00 1.00 ± 0.71 not measured not measured"
    assert page.render(text, results, TABLES) == expected


@pytest.mark.parametrize(
    "gap", ["no", "table no", "plot no", "claims a b c", "mog25 siddm", "hours 1"]
)
def test_gap_that_nothing_fills_is_an_error(gap):
    with pytest.raises(UserError, match="{{"):
        page.render(f"{{{{{gap}}}}}", records.Results(), TABLES)


# ---- plots


def test_sweeps_are_the_rows_of_one_field():
    assert claims.sweep(TABLES["stacked_ddgan"], plots.STEPS) == {
        "T1": 1,
        "T2": 2,
        "T4": 4,
        "T8": 8,
    }
    weights = claims.sweep(TABLES["stacked_siddm"], plots.WEIGHT)
    assert list(weights.values()) == [0, 0.1, 0.5, 1, 2]
    assert claims.default_row(TABLES["stacked_siddm"]) in weights


def test_plots_without_results_are_left_out():
    for name, plot in plots.PLOTS.items():
        assert plot.svg(records.Results(), TABLES) is None
        shown = page.render(f"{{{{plot {name}}}}}", records.Results(), TABLES)
        assert shown == f'Plot "{plot.title}": not measured.'


def test_plots_are_the_same_twice_and_hold_every_seed(tmp_path):
    write_all(tmp_path, np.random.default_rng(0))
    results = records.read(tmp_path, TABLES)
    drawn = {name: plot.svg(results, TABLES) for name, plot in plots.PLOTS.items()}
    assert drawn["results_steps"] == plots.PLOTS["results_steps"].svg(results, TABLES)
    for name, plot in plots.PLOTS.items():
        svg = drawn[name] or ""
        assert len(svg) < 100_000
        [text] = ElementTree.fromstring(svg).iterfind("{http://www.w3.org/2000/svg}desc")
        assert text.text == description(plot.measured(results, TABLES))
    panels = plots.PLOTS["results_steps"].measured(results, TABLES)
    of_files = {
        (claims.trained_steps(TABLES["stacked_ddgan"], t.row), values["kl"])
        for t in results.claims
        if t.table == "stacked_ddgan" and t.row.startswith("T")
        for values in t.numbers.values()
    }
    assert set(panels[1].curves[0].points) == of_files


# ---- the page of this project


def test_page_is_the_rendering_of_the_results():
    results = records.read(RESULTS, TABLES)
    assert (ROOT / "docs" / "results.md").read_text() == page.page(TEMPLATE, results, TABLES)


def test_plots_show_the_results():
    results = records.read(RESULTS, TABLES)
    for name, plot in plots.PLOTS.items():
        file = ROOT / "docs" / "images" / f"{name}.svg"
        panels = plot.measured(results, TABLES)
        assert file.exists() == bool(panels)
        if panels:
            [text] = ElementTree.parse(file).iterfind("{http://www.w3.org/2000/svg}desc")
            assert text.text == description(panels)


def test_tables_of_the_template_hold_no_numbers():
    """Every table comes from a gap, so that nobody types a number into one."""
    assert not re.search(r"^\s*\|", TEMPLATE.read_text(), re.MULTILINE)


def test_numbers_in_the_readme_are_those_of_the_results():
    results = records.read(RESULTS, TABLES)
    cells = dict(
        re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", (ROOT / "README.md").read_text(), re.M)
    )
    for config, cell in cells.items():
        ours = short_number(config, results, TABLES)
        assert ours is None or cell == ours


def test_short_numbers(tmp_path):
    for seed, modes in enumerate((990, 1000)):
        write_row(tmp_path, "stacked_ddgan", "T4", seed, {4: numbers(modes=modes, kl=0.25)})
    write_cells(tmp_path, {("siddm", 4): [0.5, 1.5]})
    results = records.read(tmp_path, TABLES)
    ours = {name: short_number(name, results, TABLES) for name in ("stacked_digits_ddgan", "mog25")}
    assert ours["stacked_digits_ddgan"] == "995 of 1,000 modes, KL 0.25"
    assert ours["mog25"] == "SIDDM, T = 4: Fréchet distance 1.00"
    assert short_number("stacked_digits_siddm", results, TABLES) is None
    assert short_number("cifar10_ddgan", results, TABLES) is None


def test_short_number_of_mnist_is_the_newest_in_the_steps_of_its_config(tmp_path, monkeypatch):
    # A config of two steps stands for it.
    monkeypatch.setattr(short, "MNIST", "digits_ddgan")
    write_mnist(tmp_path, [(900, 2, 3.0), (9_000, 4, 1.0), (9_000, 2, 2.0)])
    results = records.read(tmp_path, TABLES)
    ours = short_number("digits_ddgan", results, TABLES)
    assert ours == "Fréchet distance (classifier) 2"
