"""Choose what the plots of docs/results.md show: numbers of single seeds over one setting."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from benchmarks.results import claims, mixture
from benchmarks.results.drawing import Curve, Panel, draw
from benchmarks.results.records import Results
from ddgan_jax.experiments.claims_rows import Table, sampling_steps
from ddgan_jax.experiments.mog25_cells import PAPER
from ddgan_jax.experiments.records import Trained
from ddgan_jax.metrics.names import NUM_MODES

DDGAN, SIDDM = "stacked_ddgan", "stacked_siddm"
STEPS, WEIGHT, R = "diffusion.num_timesteps", "objective.afd_weight", "objective.denoising_weight"
DISTANCE = "Fréchet distance, features of the classifier"
Tables = Mapping[str, Table]


class Plot(NamedTuple):
    """A plot of the page. panels: without curves, or without points in them, for no results."""

    title: str
    about: str
    panels: Callable[[Results, Tables], list[Panel]]

    def measured(self, results: Results, tables: Tables) -> list[Panel]:
        """Return the panels with the curves that have points, none if one has no curve."""
        panels = [
            panel._replace(curves=[c for c in panel.curves if c.points])
            for panel in self.panels(results, tables)
        ]
        ours = [any(not c.published for c in panel.curves) for panel in panels]
        return panels if all(ours) else []

    def svg(self, results: Results, tables: Tables) -> str | None:
        """Return the plot as an SVG file, None without results."""
        panels = self.measured(results, tables)
        return draw(self.title, self.about, panels) if panels else None


def _of_rows(
    results: Results, tables: Tables, name: str, rows: Mapping[str, float], measure: str
) -> list[tuple[float, float]]:
    """Return (setting, number) of every seed of some rows. rows: the setting of each."""
    table = tables[name]
    points = []
    for row, setting in rows.items():
        runs = results.of_row(name, row)
        values = claims.values_of(runs, measure, claims.trained_steps(table, row))
        points += [(setting, value) for value in values if value is not None]
    return points


def _by_steps(results: Results, tables: Tables) -> list[Panel]:
    rows = claims.sweep(tables[DDGAN], STEPS)

    def curves(measure: str) -> list[Curve]:
        return [Curve("DDGAN", 0, _of_rows(results, tables, DDGAN, rows, measure))]

    return [
        Panel("steps T", "modes of 1,000", curves("modes"), log_y=False, most=NUM_MODES),
        Panel("steps T", "KL divergence from equal modes", curves("kl")),
    ]


def _by_weight(results: Results, tables: Tables) -> list[Panel]:
    table = tables[SIDDM]
    without_r = {
        row: claims.effective(table, row)[WEIGHT]
        for row in table.rows
        if R in claims.changes(table, row) and set(claims.changes(table, row)) <= {R, WEIGHT}
    }
    curves = {"SIDDM": claims.sweep(table, WEIGHT), "SIDDM without R": without_r}

    def panel(measure: str, title: str) -> Panel:
        found = [
            Curve(name, i, _of_rows(results, tables, SIDDM, rows, measure))
            for i, (name, rows) in enumerate(curves.items())
        ]
        return Panel("weight of AFD", title, found)

    return [panel("kl", "KL divergence from equal modes"), panel("frechet_classifier", DISTANCE)]


def _by_cost(results: Results, tables: Tables) -> list[Panel]:
    """Return quality over sampling steps and over time: of DDGAN, and of one SIDDM model."""
    row = claims.default_row(tables[SIDDM])
    found = {
        "DDGAN, a model for each number of steps": {
            claims.trained_steps(tables[DDGAN], row): results.of_row(DDGAN, row)
            for row in claims.sweep(tables[DDGAN], STEPS)
        },
        "SIDDM, one model in all": dict.fromkeys(
            sampling_steps(SIDDM, row), results.of_row(SIDDM, row)
        ),
    }

    def curves(x: Callable[[Sequence[Trained], int], float]) -> list[Curve]:
        return [
            Curve(
                name,
                i,
                [
                    (x(runs, steps), value)
                    for steps, runs in by_steps.items()
                    for value in claims.values_of(runs, "frechet_classifier", steps)
                    if value is not None
                ],
            )
            for i, (name, by_steps) in enumerate(found.items())
        ]

    def seconds(runs: Sequence[Trained], steps: int) -> float:
        # Seeds differ in their networks' numbers alone, so that they have one time in common.
        values = claims.values_of(runs, "seconds_per_100", steps)
        return statistics.fmean(v for v in values if v is not None)

    return [
        Panel("sampling steps", DISTANCE, curves(lambda _, steps: steps)),
        Panel("seconds for 100 images, one CPU core", DISTANCE, curves(seconds), even=False),
    ]


def _of_mixture(results: Results, tables: Tables) -> list[Panel]:
    curves = []
    size = next(iter(mixture.sizes(results.cells)), None)
    for i, (method, published) in enumerate(PAPER.items()):
        points = [
            (cell.num_timesteps, distance)
            for cell in sorted(results.cells, key=lambda cell: cell.num_timesteps)
            if cell.method == method and mixture.size_of(cell) == size
            for distance in mixture.kept(cell, "frechet")
        ]
        curves.append(Curve(mixture.NAMES[method], i, points))
        curves.append(Curve(mixture.NAMES[method], i, list(published.items()), published=True))
    return [Panel("steps T", "Fréchet distance of the coordinates", curves)]


_SEEDS = "A small dot is one seed, a large one their mean. Runs that diverged are left out."
PLOTS = {
    "results_steps": Plot("DDGAN on stacked digits by the number of steps", _SEEDS, _by_steps),
    "results_afd": Plot("SIDDM on stacked digits by the weight of AFD", _SEEDS, _by_weight),
    "results_cost": Plot("Quality of stacked digits and its cost", _SEEDS, _by_cost),
    "results_mog25": Plot("25 Gaussians by the number of steps", _SEEDS, _of_mixture),
}
