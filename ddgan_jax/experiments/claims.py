"""Train and measure the tables of claims, one process for each row and seed.

OUT gets a JSON file for each row and seed; what is there is not done again, so that a stopped
experiment goes on with the next one. A row is small: it is held to one processor core, and several
rows side by side use a machine better than one row on all its cores.
"""

import json
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ddgan_jax.errors import NotFiniteError, UserError, shown
from ddgan_jax.experiments import records
from ddgan_jax.experiments.claims_rows import TABLES, row_config, sampling_steps
from ddgan_jax.files.atomic import write_atomically, write_errors


class Task(NamedTuple):
    """A row of a table with one seed."""

    table: str
    row: str
    seed: int

    def file(self, out: Path) -> Path:
        """Return the place of its result."""
        return out / f"{self.table}_{self.row}_{self.seed}.json"

    def command(self) -> str:
        """Return the command that trains and measures it anew."""
        return (
            f"ddgan experiment claims --tables={self.table} --rows={self.row} "
            f"--seeds={self.seed} --out=FOLDER"
        )


def run(
    out: str,
    *,
    tables: Sequence[str],
    rows: Sequence[str],
    seeds: Sequence[int],
    jobs: int = 1,
) -> None:
    """Train and measure the rows that `out` does not hold yet, `jobs` at a time.

    rows: names of rows, of any of the tables; none for all. Raises UserError for unknown names, if
    `out` cannot be written or holds damaged results, and at the end if a row has failed.
    """
    folder = Path(out)
    tasks = list(all_tasks(tables, rows, seeds))
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    left = [task for task in tasks if not _is_done(task, folder)]
    print(f"{len(tasks) - len(left)} of {len(tasks)} rows are in {shown(folder, 300)}", flush=True)
    failed = _run_all(left, folder, jobs)
    if failed:
        names = ", ".join(f"{t.table} {t.row} seed {t.seed}" for t in failed)
        raise UserError(f"these rows have failed, see above: {names}; the same command tries again")


def _is_done(task: Task, out: Path) -> bool:
    # A file that is damaged would count as a row that nobody trained.
    there = task.file(out).exists()
    return there and bool(records.read_trained(task.file(out), **task._asdict()))


def all_tasks(tables: Sequence[str], rows: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """Return the tasks, seed by seed, so that a stopped experiment has whole tables of few seeds.

    Raises UserError for a row that none of the tables has.
    """
    known = [(table, row) for table in tables for row in TABLES[table].rows]
    if missing := sorted(set(rows) - {row for _, row in known}):
        names = ", ".join(dict.fromkeys(row for _, row in known))
        raise UserError(f"`rows`: {shown(missing[0])} is not one of {names}")
    chosen = [(table, row) for table, row in known if not rows or row in rows]
    return [Task(table, row, seed) for seed in seeds for table, row in chosen]


def _run_all(tasks: Sequence[Task], out: Path, jobs: int) -> list[Task]:
    """Do the tasks, `jobs` at a time, each in a process of its own; return those that failed."""
    # A fresh interpreter: JAX must not be forked, and its threads are counted from its cores.
    context = multiprocessing.get_context("spawn")
    cores: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for core in _cores(jobs):
        cores.put(core)

    def work(task: Task) -> bool:
        core = cores.get()
        process = context.Process(target=_in_process, args=(task, out, core))
        process.start()
        process.join()
        cores.put(core)
        return process.exitcode == 0

    pool = ThreadPoolExecutor(jobs)
    try:
        done = list(pool.map(work, tasks))
    finally:
        # After an exception no further rows begin.
        pool.shutdown(wait=False, cancel_futures=True)
    return [task for task, ok in zip(tasks, done, strict=True) if not ok]


def _cores(jobs: int) -> list[int | None]:
    """Return a core for each of the jobs; None where a process cannot be held to one."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    there = sorted(os.sched_getaffinity(0))
    return [there[i % len(there)] for i in range(jobs)]


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is no main process

    def watch() -> None:
        parent.join()
        # An orderly exit would wait for the compiler.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_process(task: Task, out: Path, core: int | None) -> None:
    _end_with_parent()
    # Before JAX starts its threads, whose number follows from the cores.
    if core is not None:
        os.sched_setaffinity(0, {core})
    from ddgan_jax import compiler

    compiler.keep_programs()
    try:
        result = train_and_measure(task)
    except UserError as error:
        print(f"{task.table} {task.row} seed {task.seed}: {error}", file=sys.stderr)
        sys.exit(1)
    content = json.dumps(result, indent=1, allow_nan=False)
    write_atomically(task.file(out), f"{content}\n".encode())
    print(f"{task.table} {task.row} seed {task.seed}: {json.dumps(result['numbers'])}", flush=True)


def train_and_measure(task: Task) -> dict[str, Any]:
    """Return the result of a row and seed, in values that JSON can hold; see `records`."""
    # The rows are listed without JAX.
    from ddgan_jax.experiments import claims_measures as measures
    from ddgan_jax.experiments import provenance

    table = TABLES[task.table]
    config = row_config(*task)
    dataset, digits = measures.open_digits(config)
    result: dict[str, Any] = {
        "experiment": "claims",
        **task._asdict(),
        "config": table.config,
        "overrides": {**table.overrides, **table.rows[task.row].overrides},
        "train_steps": config.train.num_steps,
        "batch_size": config.train.batch_size,
        "num_samples": table.samples,
        "classifier": dict(digits.about),
        "train_seconds": None,
        "diverged": False,
        "numbers": {},
    }
    try:
        params, result["train_seconds"] = measures.train(config, dataset)
    except NotFiniteError:
        result["diverged"] = True
    else:
        real = measures.read_real(dataset, table.samples, digits)
        for steps in sampling_steps(task.table, task.row):
            sampled = measures.in_steps(config, steps)
            images, labels, seconds = measures.draw(sampled, params, table.samples)
            numbers = measures.measure(images, labels, real, digits)
            result["numbers"][str(steps)] = numbers | {"seconds_per_100": seconds}
    result["cpu_seconds"] = round(provenance.cpu_seconds(), 1)
    result["about"] = provenance.describe(task.command())
    return result
