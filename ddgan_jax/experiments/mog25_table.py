"""Hold the measurements of the 25-Gaussian table, and write it: mean and spread over the seeds."""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ddgan_jax.data import mixture
from ddgan_jax.experiments.mog25_cells import PAPER
from ddgan_jax.files import foreign
from ddgan_jax.metrics.mixture import MixtureStatistics

FILE = "cells.json"


class Cell(msgspec.Struct, frozen=True):
    """The measurements of a cell of the table, one entry for each seed, and their cost.

    The numbers of a seed whose samples are not finite are None. about: see `provenance.describe`;
    empty in files of older versions, which did not count processor time either.
    """

    method: str
    num_timesteps: int
    setting: str
    iterations: int
    batch_size: int
    seeds: list[int]
    frechet: list[float | None]
    modes_any: list[int | None]
    modes_covered: list[int | None]
    high_quality_share: list[float | None]
    kl_to_uniform: list[float | None]
    within_mode_std: list[float | None]
    seconds: float
    # Of each seed; compilation is not counted.
    iterations_per_second: float
    device: str
    cpu_seconds: float | None = None
    about: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Raise ValueError unless every list has an entry for each seed."""
        columns = [getattr(self, name) for name in ("frechet", *MixtureStatistics._fields)]
        if {len(column) for column in columns} != {len(self.seeds)}:
            raise ValueError("a list has not as many entries as there are seeds")

    def diverged(self) -> list[bool]:
        """Return for each seed whether it has diverged, as the module's docstring says."""
        worst = distance_of_mean()
        return [d is None or not d <= worst for d in self.frechet]


def read_cells(folder: Path) -> list[Cell]:
    """Return the cells of a folder, none if it has no table yet.

    Raises UserError if the file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return []
    content = foreign.read_bytes(file, "table of cells", most=foreign.LARGEST_JSON)
    # Older versions wrote NaN, which is no JSON, where a seed has no number.
    return foreign.decode_json(content.replace(b"NaN", b"null"), list[Cell], source=file)


def to_json(cells: Sequence[Cell]) -> bytes:
    """Return the content of the file of these cells."""
    return msgspec.json.format(msgspec.json.encode(cells), indent=1)


@functools.cache
def distance_of_mean() -> float:
    """Return the Frechet distance of a single point at the mean of the data: their variance."""
    return float(mixture.points()[0].var(0, ddof=1).sum())


_COLUMNS: dict[str, Callable[[Cell], Any]] = {
    "method": lambda c: c.method,
    "T": lambda c: c.num_timesteps,
    "Frechet": lambda c: _spread(c, c.frechet, 3),
    "paper": lambda c: PAPER.get(c.method, {}).get(c.num_timesteps, "-"),
    "modes, any": lambda c: _spread(c, c.modes_any, 1),
    "modes, 0.2 %": lambda c: _spread(c, c.modes_covered, 1),
    "high quality": lambda c: _spread(c, c.high_quality_share, 1, unit=" %", scale=100),
    "KL": lambda c: _spread(c, c.kl_to_uniform, 3),
    "std in mode": lambda c: _spread(c, c.within_mode_std, 3),
    "diverged": lambda c: f"{sum(c.diverged())} of {len(c.seeds)}",
    "setting": lambda c: c.setting,
    "iterations": lambda c: f"{c.iterations:,} x {c.batch_size:,}",
    "it/s": lambda c: f"{c.iterations_per_second:.0f}",
}


def _spread(
    cell: Cell, values: Sequence[float | None], digits: int, *, unit: str = "", scale: float = 1.0
) -> str:
    """Return mean and standard deviation over the seeds that have not diverged."""
    kept = [
        scale * value
        for value, gone in zip(values, cell.diverged(), strict=True)
        if not gone and value is not None and math.isfinite(value)
    ]
    if not kept:
        return "-"
    mean = f"{np.mean(kept):.{digits}f}"
    spread = "" if len(kept) == 1 else f" +- {np.std(kept, ddof=1):.{digits}f}"
    return f"{mean}{spread}{unit}"


def table(cells: Sequence[Cell]) -> str:
    """Return the cells as a Markdown table; see `_spread`."""
    rows = [list(_COLUMNS), ["---"] * len(_COLUMNS)]
    rows += [[str(column(cell)) for column in _COLUMNS.values()] for cell in cells]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
