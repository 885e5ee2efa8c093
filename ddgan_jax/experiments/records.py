"""Hold what a result file of an experiment says, and check it when it is read."""

from pathlib import Path
from typing import Any

import msgspec

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign


class Machine(msgspec.Struct):
    """The machine of a result. cores: those that the process could use."""

    processor: str
    cores: int | None = None


class About(msgspec.Struct):
    """Where a result comes from; see `provenance.describe`."""

    command: str
    commit: str
    date: str
    machine: Machine


class Trained(msgspec.Struct):
    """A row of a table of claims with one seed: what was trained, and its numbers.

    numbers: by the number of sampling steps, then by name; empty if the training diverged.
    cpu_seconds: of training and measuring.
    """

    table: str
    row: str
    seed: int
    config: str
    train_steps: int
    batch_size: int
    train_seconds: float | None
    cpu_seconds: float
    num_samples: int
    numbers: dict[int, dict[str, float | None]]
    diverged: bool
    classifier: dict[str, Any]
    about: About


def read_trained(path: Path, *, table: str, row: str, seed: int) -> Trained:
    """Return the result in a file. Raises UserError if it is damaged or of another row or seed."""
    trained = foreign.read_json(path, Trained)
    if (trained.table, trained.row, trained.seed) != (table, row, seed):
        raise UserError(
            f"{shown(path, 300)} is the result of {trained.table} {trained.row}, seed "
            f"{trained.seed}, by its content: move it away"
        )
    return trained
