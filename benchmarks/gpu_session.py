"""Measure everything on a GPU that is at hand for minutes at a time.

    python -m benchmarks.gpu_session --dry-run
    python -m benchmarks.gpu_session --out=results --runs=RUNS --data=DATA

Does the next pieces of the list for at most --budget seconds and ends; the same command does the
ones after them, until it says that nothing is left. A piece is begun only if its bound fits into
what is left of the budget. One that is cut off begins again or, if it can, goes on. After two tries
in vain it is left out, and named. OUT gets small files: JSON reports, logs, grids of samples. RUNS
gets checkpoints and compiled programs. Data sets lie prepared in DATA (`ddgan prepare`). The parts:

    a  device, versions, memory; the first step of each config that ships
    b  CIFAR-10: train step and sampler, float32 and bfloat16, in turns with PyTorch
    c  100 images of CIFAR-10 in four steps, in turns with PyTorch
    d  CIFAR-10: a run of --steps, for as long as there is
    e  CIFAR-10: scores and a grid of what d has trained so far

    f  the 25 Gaussians, the whole table         h  Stacked MNIST
    g  the claims of the papers                  i  MNIST
    j  other benchmarks
"""

import itertools
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import command, gpu_pieces
from benchmarks.gpu_pieces import Piece
from benchmarks.gpu_running import (
    TRIES,
    bound,
    given_up,
    left,
    run,
    seconds_allowed,
    seconds_needed,
)
from ddgan_jax.cli.arguments import Flag, parse_flags
from ddgan_jax.errors import UserError

FLAGS = (
    Flag("out", "FOLDER", "for reports and pictures", "results"),
    Flag("runs", "FOLDER", "for checkpoints and compiled programs, which are large", "runs"),
    Flag("data", "FOLDER", "where prepared data sets lie", ""),
    Flag("parts", "LETTERS", "which parts, in this order", "abcde"),
    Flag("budget", "SECONDS", "after which this call has ended", 540, "integer", at_least=60),
    Flag(
        "steps", "N", "train steps of a run, its schedule cut to them", 4_000, "integer", at_least=1
    ),
    Flag("together", "N", "first steps that compile side by side", 6, "integer", at_least=1),
    Flag("dry_run", "", "print what is left, call by call, and run nothing", False, "switch"),
)


def units(todo: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield the pieces in their order, together those that run side by side."""
    for name, group in itertools.groupby(todo, key=lambda piece: piece.side_by_side):
        row = list(group)
        yield from [row] if name else [[piece] for piece in row]


class Planned(NamedTuple):
    """A piece in a call that may come. seconds: That it takes there at most."""

    piece: Piece
    seconds: float


def plan(todo: Sequence[Piece], out: Path, budget: float) -> list[list[list[Planned]]]:
    """Return the calls, and in each its units, if every piece takes as long as it may."""
    calls: list[list[list[Planned]]] = [[]]
    remaining = budget
    for unit in units(todo):
        still = max(bound(piece, out) for piece in unit)
        while still > 0:
            if seconds_needed(unit, out, budget) > remaining:
                calls.append([])
                remaining = budget
            # A row of pieces that run side by side takes as long as the longest of them.
            taken = min(still, max(seconds_allowed(piece, out, remaining) for piece in unit))
            row = [Planned(p, min(taken, bound(p, out))) for p in unit]
            calls[-1].append(row)
            remaining -= taken
            # Only what goes on where it was has more to do after that.
            still = still - taken if unit[0].progress else 0
    return calls if calls[0] else []


def print_plan(todo: Sequence[Piece], out: Path, budget: float) -> None:
    """Print the pieces of each call with their bounds and commands."""
    for number, call in enumerate(plan(todo, out, budget), 1):
        bounds = [max(planned.seconds for planned in row) for row in call]
        print(f"call {number}: at most {sum(bounds):.0f} of {budget:.0f} s")
        for row in call:
            for piece, seconds in row:
                beside = ", side by side" if len(row) > 1 else ""
                into = f" > {out / piece.report}" if piece.report else ""
                print(f"  {piece.name} ({seconds:.0f} s{beside}): {shlex.join(piece.argv)}{into}")


def session(todo: Sequence[Piece], out: Path, budget: float) -> list[str]:
    """Do pieces in their order until the next does not fit; return lines about those in vain."""
    out.mkdir(parents=True, exist_ok=True)
    end, problems = time.monotonic() + budget, []
    for number, unit in enumerate(units(left(todo, out))):
        remaining = end - time.monotonic()
        # The first fits into any call, though a moment of it has passed.
        if number and seconds_needed(unit, out, budget) > remaining:
            break
        for piece in unit:
            print(f"{remaining:.0f} s left, {piece.name}: {shlex.join(piece.argv)}", flush=True)
        # One piece that cannot run is no reason to leave the others.
        problems += run(unit, out, remaining)
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Do the next pieces, and print how many are left."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nFlags:\n{command.flag_lines(FLAGS)}")
        return 0
    values, _ = parse_flags("python -m benchmarks.gpu_session", FLAGS, argv)
    if not values.parts or set(values.parts) - set(gpu_pieces.PARTS):
        raise UserError(f"--parts={values.parts}: parts are letters of {''.join(gpu_pieces.PARTS)}")
    out, runs = Path(values.out), Path(values.runs)
    given = gpu_pieces.Session(out, runs, values.data, values.steps, values.together)
    todo = gpu_pieces.pieces(values.parts, given)
    lacking = gpu_pieces.missing(left(todo, out), values.data)
    if values.dry_run:
        print_plan(left(todo, out), out, values.budget)
        print(*lacking, sep="\n", end="\n" * bool(lacking))
        return 0
    if lacking:
        raise UserError(f"{'; '.join(lacking)}; or leave parts out with --parts")
    # All pieces share what they compile, and none takes memory that another one needs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(runs.absolute() / "jax_cache"))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Whoever asks this to end wants the pieces to end, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for problem in session(todo, out, values.budget):
        print(problem)
    for piece in given_up(todo, out):
        print(f"{piece.name} is left out after {TRIES} tries; to try again remove its .tries file")
    count = len(left(todo, out))
    print(f"{count} pieces left: run the same command again" if count else "nothing is left")
    return 0


if __name__ == "__main__":
    sys.exit(command.exit_code("gpu_session", main))
