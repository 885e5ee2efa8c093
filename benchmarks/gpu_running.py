"""Run pieces of `benchmarks.gpu_session` in time, and remember in files which of them are done.

In the folder of results NAME.done says that the piece NAME ended well, NAME.tries how often in a
row it was begun in vain, and NAME.log has what it printed. A report is NAME.unfinished until it is
whole.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gpu_pieces import Piece
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.signals import RUN_AGAIN

# A piece that was tried so often, and neither ended nor got further, is left out.
TRIES = 2
# Seconds to end in, within the budget: a run saves a checkpoint, other pieces just end.
GRACE_OF_A_RUN, GRACE = 45.0, 5.0
# Names of files and checkpoints that were being written when their program ended.
_HALF_WRITTEN = re.compile(r"^\.|tmp")


# -------------------------------------------------------------------------- what a piece has done


def is_done(piece: Piece, out: Path) -> bool:
    """Return whether a piece has ended well, in this call or in an earlier one."""
    return (out / f"{piece.name}.done").exists()


def tries(piece: Piece, out: Path) -> int:
    """Return how often in a row a piece was begun in vain."""
    file = out / f"{piece.name}.tries"
    return int(file.read_text()) if file.exists() else 0


def left(todo: Sequence[Piece], out: Path) -> list[Piece]:
    """Return the pieces that are to be done, and can be."""
    return [p for p in todo if not is_done(p, out) and tries(p, out) < TRIES]


def given_up(todo: Sequence[Piece], out: Path) -> list[Piece]:
    """Return the pieces that were tried too often."""
    return [p for p in todo if not is_done(p, out) and tries(p, out) >= TRIES]


def _progress(piece: Piece) -> set[tuple[str, int]]:
    """Return what a piece has done so far: the entries of its folder, and their times."""
    if not piece.progress or not piece.progress.is_dir():
        return set()
    entries = [p for p in piece.progress.iterdir() if not _HALF_WRITTEN.search(p.name)]
    return {(p.name, p.stat().st_mtime_ns) for p in entries}


# ------------------------------------------------------------------------------------------ seconds


def _grace(piece: Piece) -> float:
    return GRACE_OF_A_RUN if piece.progress else GRACE


def bound(piece: Piece, out: Path) -> float:
    """Return the seconds that a piece takes at most; what begins again gets more each time."""
    return piece.seconds * (1 if piece.progress else 1 + tries(piece, out))


def seconds_needed(unit: Sequence[Piece], out: Path, budget: float) -> float:
    """Return the seconds without which the pieces of a unit are not begun, with those to end in."""

    def needed(piece: Piece) -> float:
        return (piece.least if piece.progress else bound(piece, out)) + _grace(piece)

    # What is longer than any call is tried with a whole one.
    return min(max(map(needed, unit)), budget)


def seconds_allowed(piece: Piece, out: Path, remaining: float) -> float:
    """Return the seconds after which a piece is cut off, with `remaining` left of the budget."""
    # What goes on the next time may use all that is there.
    most = remaining if piece.progress else bound(piece, out)
    return max(min(most, remaining - _grace(piece)), 0.0)


# ------------------------------------------------------------------------------------------ running


def run(unit: Sequence[Piece], out: Path, remaining: float) -> list[str]:
    """Run pieces side by side within the remaining seconds; return a line for each in vain."""
    begin, problems = time.monotonic(), []
    ends = {p.name: begin + seconds_allowed(p, out, remaining) for p in unit}
    before = {p.name: _progress(p) for p in unit}
    with contextlib.ExitStack() as stack:
        started = [(p, stack.enter_context(_started(p, out, ends[p.name]))) for p in unit]
        # The first to be cut off is waited for first, so that none waits for another.
        for piece, process in sorted(started, key=lambda pair: ends[pair[0].name]):
            if problem := _ended(piece, out, process, ends[piece.name]):
                problems.append(f"{piece.name} {problem}: see {out / piece.name}.log")
    for piece in unit:
        _keep(piece, out)
        # Also what is cut off has not been in vain if it got further.
        if is_done(piece, out) or _progress(piece) != before[piece.name]:
            (out / f"{piece.name}.tries").unlink(missing_ok=True)
    return problems


@contextlib.contextmanager
def _started(piece: Piece, out: Path, end: float) -> Iterator[subprocess.Popen | None]:
    """Run a command in the context, and end it with all that it started; None if it cannot run.

    end: The time at which it is cut off; what it gets to end in is counted from there.
    """
    # Noted before, so that a try that ends with the whole machine counts as well.
    write_atomically(out / f"{piece.name}.tries", str(tries(piece, out) + 1).encode())
    with (out / f"{piece.name}.log").open("a") as log, _unfinished(piece, out).open("w") as printed:
        stdout = printed if piece.report else log
        try:
            # A session of its own, so that the whole of it can be ended.
            process = subprocess.Popen(
                piece.argv, stdout=stdout, stderr=log, start_new_session=True
            )
        except OSError as error:
            log.write(f"{error}\n")
            yield None
            return
        try:
            yield process
        finally:
            _end(process, min(end, time.monotonic()) + _grace(piece))


def _end(process: subprocess.Popen, last: float) -> None:
    """Ask a command to end, and kill at the time `last` what is still there of it."""
    try:
        if process.poll() is None:
            # A run saves a checkpoint, from which the next call goes on.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(last - time.monotonic(), 0.0))
    finally:
        # A benchmark leaves the command that it compares itself with.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _unfinished(piece: Piece, out: Path) -> Path:
    return out / f"{piece.name}.unfinished"


def _ended(piece: Piece, out: Path, process: subprocess.Popen | None, end: float) -> str:
    """Wait for a command until `end`; return what went wrong, or mark it as done and return ""."""
    if process is None:
        return "cannot be started"
    try:
        code = process.wait(max(end - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        return "was cut off"
    if code:
        return "has stopped" if code == RUN_AGAIN else f"ended with {code}"
    if piece.report:
        try:
            json.loads(_unfinished(piece, out).read_bytes())
        except ValueError:
            return "printed no JSON"
        os.replace(_unfinished(piece, out), out / piece.report)
    write_atomically(out / f"{piece.name}.done", f"{shlex.join(piece.argv)}\n".encode())
    return ""


def _keep(piece: Piece, out: Path) -> None:
    """Copy what a piece keeps elsewhere, and remove what it printed in vain."""
    _unfinished(piece, out).unlink(missing_ok=True)
    for source in piece.keep:
        files = sorted(source.iterdir()) if source.is_dir() else [source] * source.exists()
        for file in files:
            shutil.copy(file, out / f"{piece.name}_{file.name}")
