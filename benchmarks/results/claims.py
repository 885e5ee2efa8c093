"""Write the tables of claims: a row for each row of `claims_rows.TABLES`, measured or not."""

import functools
from collections.abc import Sequence
from typing import Any

from benchmarks.results.records import Results
from benchmarks.results.spread import FORMS, MEASURES, count_of, hours, listed, over_seeds
from benchmarks.scaling import markdown_table
from ddgan_jax.config.files import leaves, load_config
from ddgan_jax.experiments.claims_rows import Overrides, Table
from ddgan_jax.experiments.records import About, Trained
from ddgan_jax.metrics.names import NUM_MODES

# Seeds of a row: those that `ddgan experiment claims` trains if nobody names others.
SEEDS = 3
# FID of SIDDM on CIFAR-10 by number of steps. The paper does not say whether it trained one model
# for each of them.
PAPER_BY_STEPS = {1: "27.39", 2: "3.17", 4: "2.24", 8: "2.31", 16: "2.15"}


def section(table: Table, name: str, results: Results) -> str:
    """Return what is common to the rows of a table, the table, and that of other sampling steps."""
    runs = {row: results.of_row(name, row) for row in table.rows}
    parts = [_facts(table, [t for of_row in runs.values() for t in of_row])]
    parts.append(_rows(table, runs))
    if any(row.steps for row in table.rows.values()):
        parts.append(_other_steps(table, runs))
    return "\n\n".join(parts)


@functools.cache
def _shipped(config: str) -> dict[str, Any]:
    return dict(leaves(load_config(config)))


def trained_steps(table: Table, row: str) -> int:
    """Return the number of steps T that a row is trained for."""
    return effective(table, row)["diffusion.num_timesteps"]


def effective(table: Table, row: str) -> dict[str, Any]:
    """Return all fields of a row's config by their full names."""
    return {**_shipped(table.config), **table.overrides, **table.rows[row].overrides}


def changes(table: Table, row: str) -> Overrides:
    """Return the fields in which a row really differs from the table's common config."""
    common = {**_shipped(table.config), **table.overrides}
    overrides = table.rows[row].overrides
    return {field: value for field, value in overrides.items() if common[field] != value}


def default_row(table: Table) -> str:
    """Return the row that changes nothing."""
    [row] = [row for row in table.rows if not changes(table, row)]
    return row


def sweep(table: Table, field: str) -> dict[str, float]:
    """Return the rows that change at most this field, with its value, in rising order."""
    rows = [row for row in table.rows if set(changes(table, row)) <= {field}]
    values = {row: effective(table, row)[field] for row in rows}
    return dict(sorted(values.items(), key=lambda item: item[1]))


def values_of(runs: Sequence[Trained], measure: str, steps: int) -> list[float | None]:
    """Return a number of each seed that has not diverged and has it."""
    return [
        t.numbers[steps][measure]
        for t in runs
        if not t.diverged and measure in t.numbers.get(steps, {})
    ]


def made_with(abouts: Sequence[About]) -> str:
    """Return the machines and the commits behind some results, the oldest first."""
    abouts = sorted(abouts, key=lambda about: about.date)
    machines = [
        f"{a.machine.processor}, {a.machine.cores} core{'s' * (a.machine.cores != 1)}"
        for a in abouts
    ]
    return f"{listed(machines)}; commit {listed([f'`{a.commit}`' for a in abouts])}"


def _facts(table: Table, runs: Sequence[Trained]) -> str:
    changed = ", ".join(f"`{field}` = {value}" for field, value in table.overrides.items())
    config = f"Config `{table.config}`" + (f" with {changed}" if changed else "")
    if not runs:
        return f"{config}. No row is measured yet."
    settings = [
        f"{t.train_steps:,} steps of {t.batch_size} images, {t.num_samples:,} samples" for t in runs
    ]
    classifiers = [
        f"{t.classifier['accuracy']:.1%} of {t.classifier['held_out']:,} held-out digits"
        for t in runs
    ]
    parts = [
        f"{config}; {listed(settings)} of each model.",
        f"{made_with([t.about for t in runs])}; {hours(sum(t.cpu_seconds for t in runs))} in all.",
        f"The classifier behind the numbers names {listed(classifiers)} right.",
    ]
    if any("modes" in numbers for t in runs for numbers in t.numbers.values()):
        floors = [f"{(NUM_MODES - 1) / (2 * t.num_samples):.3f}" for t in runs]
        parts.append(
            f"A perfect sampler finds all {NUM_MODES:,} modes with a KL of {listed(floors)}."
        )
    # The first row that is there, as an example of all.
    return "\n".join(parts) + f" One row again:\n\n```sh\n{runs[0].about.command}\n```"


def _measures(runs: dict[str, list[Trained]]) -> list[str]:
    """Return the names of the numbers that any of the models has."""
    there = {m for of_row in runs.values() for t in of_row for n in t.numbers.values() for m in n}
    return [measure.name for measure in MEASURES if measure.name in there]


def _titles(measures: Sequence[str]) -> list[str]:
    return [measure.title for measure in MEASURES if measure.name in measures]


def _rows(table: Table, runs: dict[str, list[Trained]]) -> str:
    measures = _measures(runs)
    rows = []
    for name, row in table.rows.items():
        found, steps = runs[name], trained_steps(table, name)
        rows.append(
            [
                row.title,
                count_of(len(found), SEEDS, sum(t.diverged for t in found)),
                *(over_seeds(values_of(found, m, steps), FORMS[m]) for m in measures),
                over_seeds([t.cpu_seconds / 60 for t in found]),
                row.paper or "-",
            ]
        )
    head = ["row", "seeds", *_titles(measures), "CPU minutes", "paper, CIFAR-10"]
    return markdown_table(head, rows)


def _other_steps(table: Table, runs: dict[str, list[Trained]]) -> str:
    measures = _measures(runs)
    rows = []
    for name, row in table.rows.items():
        trained = trained_steps(table, name)
        paper = {} if effective(table, name)["objective.joint"] else PAPER_BY_STEPS
        for steps in sorted({trained, *row.steps}) if row.steps else ():
            found = [t for t in runs[name] if steps in t.numbers]
            rows.append(
                [
                    row.title,
                    f"{steps}{', as trained' * (steps == trained)}",
                    count_of(len(found), SEEDS, 0),
                    *(over_seeds(values_of(found, m, steps), FORMS[m]) for m in measures),
                    f"FID {paper[steps]}" if steps in paper else "-",
                ]
            )
    head = ["row", "sampled in steps", "seeds", *_titles(measures), "paper, CIFAR-10"]
    return f"The same models, sampled in other numbers of steps:\n\n{markdown_table(head, rows)}"
