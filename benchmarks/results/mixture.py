"""Write the table of the 25 Gaussians: the cells of the paper's Table 1, then the others."""

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from benchmarks.results.claims import made_with
from benchmarks.results.records import Results
from benchmarks.results.spread import FREE, count_of, hours, over_seeds
from benchmarks.scaling import markdown_table
from ddgan_jax.experiments.mog25_cells import PAPER
from ddgan_jax.experiments.mog25_table import Cell
from ddgan_jax.experiments.records import About

# Seeds of a cell.
SEEDS = 5
NAMES = {
    "gan": "GAN",
    "ddgan": "DDGAN",
    "siddm": "SIDDM",
    "siddm_no_afd": "SIDDM without AFD",
    "siddm_recon": "SIDDM, recon without C",
    "siddm_recon_c": "SIDDM, recon with C",
    "siddm_kl_c": "SIDDM, kl with C",
}
# The fields of a cell that hold a number for each seed, with their titles and forms.
COLUMNS = (
    ("frechet", "Fréchet", FREE),
    ("modes_any", "modes, any", ".1f"),
    ("modes_covered", "modes, 0.2 %", ".1f"),
    ("high_quality_share", "high quality", ".1%"),
    ("kl_to_uniform", "KL", ".3f"),
    ("within_mode_std", "std in mode", ".3f"),
)


class Size(NamedTuple):
    """What cells must share to stand in one table."""

    setting: str
    iterations: int
    batch_size: int


def sizes(cells: Sequence[Cell]) -> list[Size]:
    """Return the sizes of the cells, that of most cells first."""
    found = [size_of(cell) for cell in cells]
    return sorted(set(found), key=lambda size: (-found.count(size), size))


def size_of(cell: Cell) -> Size:
    """Return the size of a cell."""
    return Size(cell.setting, cell.iterations, cell.batch_size)


def section(results: Results) -> str:
    """Return a table for each size that was trained, with what its cells have in common."""
    if not results.cells:
        return f"No cell is measured yet.\n\n{_table([])}"
    parts = []
    for size in sizes(results.cells):
        cells = [cell for cell in results.cells if size_of(cell) == size]
        parts += [_facts(size, cells), _table(cells)]
    return "\n\n".join(parts)


def kept(cell: Cell, field: str) -> list[Any]:
    """Return a number of each seed that has not diverged and has it."""
    values = zip(getattr(cell, field), cell.diverged(), strict=True)
    return [value for value, gone in values if not gone and value is not None]


def _facts(size: Size, cells: Sequence[Cell]) -> str:
    abouts = [msgspec.convert(cell.about, About) for cell in cells if cell.about]
    lines = [
        f'Config `mog25` in the setting "{size.setting}", {size.iterations:,} steps of '
        f"{size.batch_size:,} points."
    ]
    cost = hours(sum(cell.cpu_seconds or 0 for cell in cells))
    lines.append(f"{made_with(abouts)}; {cost} in all." if abouts else f"{cost} in all.")
    return "\n".join(lines) + f" One cell again:\n\n```sh\n{_command(cells[0])}\n```"


def _command(cell: Cell) -> str:
    seeds = ",".join(map(str, cell.seeds))
    flags = {
        "setting": cell.setting,
        "methods": cell.method,
        "steps": cell.num_timesteps,
        "seeds": seeds,
        "iterations": cell.iterations,
        "out": "FOLDER",
    }
    return shlex.join(["ddgan", "experiment", "mog25", *(f"--{k}={v}" for k, v in flags.items())])


def _table(cells: Sequence[Cell]) -> str:
    by_key = {(cell.method, cell.num_timesteps): cell for cell in cells}
    of_paper = [(method, T) for method, values in PAPER.items() for T in values]
    others = sorted(key for key in by_key if key not in of_paper)
    rows = []
    for method, T in [*of_paper, *others]:
        cell = by_key.get((method, T))
        gone = sum(cell.diverged()) if cell else 0
        rows.append(
            [
                NAMES.get(method, method),
                f"{T}",
                count_of(len(cell.seeds) if cell else 0, SEEDS, gone),
                *(over_seeds(kept(cell, f), form) if cell else "-" for f, _, form in COLUMNS),
                f"{PAPER.get(method, {}).get(T, '-')}",
            ]
        )
    titles = [title for _, title, _ in COLUMNS]
    return markdown_table(["method", "T", "seeds", *titles, "paper, Fréchet"], rows)
