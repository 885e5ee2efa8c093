"""Read the result files of the experiments below docs/results.

    claims/*.json        a trained model each, written by `ddgan experiment claims`
    mog25/cells.json     written by `ddgan experiment mog25`
    mnist/*.json         written by `ddgan evaluate`, one for each checkpoint
    mnist/training.json  what the MNIST run was and what it cost, as in `Training`

What is not there was not measured, and is no error.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import results
from ddgan_jax.experiments.claims_rows import Table
from ddgan_jax.experiments.mog25_table import Cell, read_cells
from ddgan_jax.experiments.records import About, Trained
from ddgan_jax.files import foreign

TRAINING = "training.json"


class Training(msgspec.Struct):
    """The run whose checkpoints were evaluated."""

    config: str
    train_steps: int
    batch_size: int
    cpu_seconds: float
    about: About


class Results(NamedTuple):
    """Everything that was measured. mnist: by the name of the file."""

    claims: tuple[Trained, ...] = ()
    cells: tuple[Cell, ...] = ()
    mnist: dict[str, results.Result] = {}
    training: Training | None = None

    def of_row(self, table: str, row: str) -> list[Trained]:
        """Return the results of a row of a table of claims, by seed."""
        found = [t for t in self.claims if (t.table, t.row) == (table, row)]
        return sorted(found, key=lambda t: t.seed)

    def cpu_seconds(self) -> float:
        """Return the processor time of everything. Cells that did not count theirs add nothing."""
        parts = [t.cpu_seconds for t in self.claims]
        parts += [c.cpu_seconds or 0.0 for c in self.cells]
        return sum(parts) + (self.training.cpu_seconds if self.training else 0.0)


def read(folder: Path, tables: dict[str, Table]) -> Results:
    """Return the results in a folder. Raises UserError for files that are no results.

    tables: the rows that are known. Models of one row must have been trained alike.
    """
    claims = [
        foreign.read_json(path, Trained) for path in sorted((folder / "claims").glob("*.json"))
    ]
    for trained in claims:
        if trained.table not in tables or trained.row not in tables[trained.table].rows:
            raise UserError(f"no table has a row {trained.table} {trained.row}: remove its files")
    mnist = sorted((folder / "mnist").glob("*.json"))
    training = folder / "mnist" / TRAINING
    found = Results(
        tuple(claims),
        tuple(read_cells(folder / "mog25")),
        {path.stem: results.read(path) for path in mnist if path.name != TRAINING},
        foreign.read_json(training, Training) if training.exists() else None,
    )
    for table, row in {(t.table, t.row) for t in claims}:
        settings = {(t.train_steps, t.batch_size, t.num_samples) for t in found.of_row(table, row)}
        if len(settings) > 1:
            raise UserError(f"{table} {row}: its seeds differ in steps, batch or samples")
    return found
