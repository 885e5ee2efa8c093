"""Result files of experiments with made-up numbers, for temporary folders alone."""

import json
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.results import claims, records
from ddgan_jax.experiments.claims import Task
from ddgan_jax.experiments.claims_rows import TABLES, sampling_steps
from ddgan_jax.experiments.mog25_cells import PAPER
from ddgan_jax.experiments.mog25_table import Cell


def about(command: str, commit: str = "0123456789ab") -> dict:
    machine = {"processor": "made-up processor", "cores": 1, "device_kind": "cpu"}
    return {"command": command, "commit": commit, "date": "2000-01-01", "machine": machine}


def write_row(folder: Path, table: str, row: str, seed: int, numbers: dict, **more) -> None:
    """Write a result file as `ddgan experiment claims` does; numbers: by sampling steps."""
    task = Task(table, row, seed)
    result = {
        **task._asdict(),
        "config": TABLES[table].config,
        "train_steps": 100,
        "batch_size": 32,
        "train_seconds": 100.0,
        "cpu_seconds": 1800.0,
        "num_samples": TABLES[table].samples,
        "numbers": {str(steps): values for steps, values in numbers.items()},
        "diverged": not numbers,
        "classifier": {"accuracy": 0.975, "held_out": 180},
        "about": about(task.command()),
    }
    (folder / "claims").mkdir(exist_ok=True)
    task.file(folder / "claims").write_text(json.dumps(result | more))


def write_cells(folder: Path, cells: dict) -> None:
    """Write cells.json. cells: Frechet distances of the seeds by (method, T)."""
    found = []
    for (method, T), distances in cells.items():
        each = [1.0] * len(distances)
        cell = Cell(
            method=method,
            num_timesteps=T,
            setting="reduced",
            iterations=10_000,
            batch_size=256,
            seeds=list(range(len(distances))),
            frechet=distances,
            modes_any=[25] * len(distances),
            modes_covered=[20] * len(distances),
            high_quality_share=each,
            kl_to_uniform=each,
            within_mode_std=each,
            seconds=10.0,
            iterations_per_second=1000.0,
            device="cpu",
            cpu_seconds=3600.0,
            about=about("ddgan experiment mog25"),
        )
        found.append(msgspec.to_builtins(cell))
    (folder / "mog25").mkdir()
    (folder / "mog25" / "cells.json").write_text(json.dumps(found))


def numbers(**values) -> dict:
    everything = {
        "modes": 900,
        "kl": 0.5,
        "frechet_classifier": 10.0,
        "frechet_pixels": 1.0,
        "precision": 0.5,
        "recall": 0.25,
        "seconds_per_100": 0.1,
    }
    return everything | values


def write_all(folder: Path, rng: np.random.Generator) -> None:
    """Write a result for every row, with random numbers."""
    for name, table in TABLES.items():
        for row in table.rows:
            for seed in range(claims.SEEDS):
                found = {}
                for steps in sampling_steps(name, row):
                    drawn = rng.uniform(0.1, 10, 2)
                    found[steps] = numbers(kl=drawn[0], frechet_classifier=drawn[1])
                    found[steps] |= {"seconds_per_100": 0.02 * steps * rng.uniform(0.9, 1.1)}
                write_row(folder, name, row, seed, found)
    cells = {(m, T): rng.uniform(0.1, 10, 5).tolist() for m, steps in PAPER.items() for T in steps}
    write_cells(folder, cells)


def write_mnist(folder: Path, evaluations: list[tuple[int, int, float]]) -> None:
    """Write result files of (train step, sampling steps, distance), and what the run cost."""
    (folder / "mnist").mkdir()
    for step, steps, distance in evaluations:
        sampling = {"seconds_per_100_images": 0.5, "denoising_steps": steps}
        result = {
            "metrics": {"frechet_classifier_5000": distance},
            "samples": {"count": 5_000},
            "model": {"folder": "runs/mnist", "step": step},
            "sampling": sampling,
        }
        (folder / "mnist" / f"{step}_{steps}.json").write_text(json.dumps(result))
    run = {"config": "mnist_ddgan", "train_steps": 9_000, "batch_size": 64, "cpu_seconds": 7200.0}
    run["about"] = about("ddgan train --config=mnist_ddgan --workdir=FOLDER")
    (folder / "mnist" / records.TRAINING).write_text(json.dumps(run))
