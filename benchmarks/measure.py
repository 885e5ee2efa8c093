"""Time programs, in turns with each other and with a baseline command.

Nothing here knows what is measured: a benchmark makes `Program`s, mostly with `compile_program`,
and `measure` turns them into the fields of a report.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ddgan_jax.errors import UserError

# Shorter repeats would measure the clock and the scheduler.
MIN_SECONDS = 0.5

Report = dict[str, Any]


# ------------------------------------------------------------------------------------- programs


class Program(NamedTuple):
    """A piece of work to be timed.

    call: does the work once; whatever it returns is waited for. images: per call. weight: share
    of this program in the calls of real use, where several take turns. flops_per_image: by method
    of counting, None: unknown. bytes_per_image: read and written, as the compiler counts; None:
    unknown. facts: more fields of its report. executable: what the compiler made, if anything.
    """

    call: Callable[[], Any]
    images: int
    weight: float = 1.0
    flops_per_image: Mapping[str, float | None] = {}
    bytes_per_image: float | None = None
    facts: Mapping[str, Any] = {}
    executable: jax.stages.Compiled | None = None


class Compiled(NamedTuple):
    """An executable, how it was made, and by XLA's analysis what a call does on one device."""

    call: jax.stages.Compiled
    flops: float | None
    bytes: float | None  # read and written by all its operations
    facts: Report


def compile_program(mapped: Any, *args: Any) -> Compiled:
    """Compile a mapped function for the shapes and places of `args`, and time that."""
    start = time.perf_counter()
    lowered = mapped.lower(*args)
    traced = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    facts = {
        "trace_seconds": rounded(traced - start),
        "compile_seconds": rounded(end - traced),
        "temporary_bytes_per_device": compiled.memory_analysis().temp_size_in_bytes,
    }
    cost = compiled.cost_analysis() or {}
    return Compiled(compiled, cost.get("flops"), cost.get("bytes accessed"), facts)


class Peak(NamedTuple):
    """What a device can do, as `benchmarks.peak` measured it."""

    flops_per_second: float  # of a large matrix product in the program's dtype
    bytes_per_second: float  # of a large copy, read and written


def read_peak(path: str | None, dtype: str) -> Peak | None:
    """Return the peak in a report of `benchmarks.peak`; None without a path. dtype: of computing.

    Raises UserError if the file is not such a report.
    """
    if not path:
        return None
    try:
        report = json.loads(Path(path).read_text())
        flops = report["matmul"][dtype]["flops_per_second"]
        return Peak(flops, report["copy"]["bytes_per_second"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--peak={path} is not a report of benchmarks.peak ({error!r})") from error


# --------------------------------------------------------------------------------------- timing


class Seconds(NamedTuple):
    """Elapsed time, and the time that all threads of the process computed; None: unknown."""

    wall: float
    cpu: float | None


def time_calls(call: Callable[[], Any], count: int) -> Seconds:
    """Return the seconds of `count` calls together, waiting for the last result."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        result = call()
    jax.block_until_ready(result)
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def warm_up(call: Callable[[], Any]) -> int:
    """Return how many calls take MIN_SECONDS; they are made now, and not counted anywhere."""
    time_calls(call, 1)
    count = 1
    while time_calls(call, count).wall < MIN_SECONDS:
        count *= 2
    return count


def measure(
    programs: Mapping[str, Program],
    repeats: int,
    baseline: "Baseline | None" = None,
    peak: Peak | None = None,
) -> Report:
    """Time all programs `repeats` times, in turns with each other and with the baseline.

    repeats: > 0. peak: adds the shares of it that the programs reach. Raises UserError if the
    baseline fails or gives no figure.
    """
    counts = {}
    for name, program in programs.items():
        progress(f"{name}: warm-up")
        counts[name] = warm_up(program.call)
    turns, theirs = _take_turns(programs, counts, repeats, baseline)
    ours = [_per_image(programs, turn) for turn in turns]
    wall, cpu = (statistics.median(values) for values in zip(*ours, strict=True))
    report = {
        "repeats": repeats,
        "seconds_per_image": rounded(wall),
        "cpu_seconds_per_image": rounded(cpu),
        "images_per_second": rounded(1 / wall),
        "programs": {
            name: _program_report(program, counts[name], [turn[name] for turn in turns], peak)
            for name, program in programs.items()
        },
    }
    return report | ({"baseline": _comparison(baseline, ours, theirs)} if baseline else {})


def _take_turns(
    programs: Mapping[str, Program],
    counts: Mapping[str, int],
    repeats: int,
    baseline: "Baseline | None",
) -> tuple[list[dict[str, Seconds]], list[Seconds]]:
    """Return seconds per call of every program, and per image of the baseline, by repeat."""
    turns, theirs = [], []
    for repeat in range(repeats):
        turn = {}
        for name, program in programs.items():
            count = counts[name]
            wall, cpu = time_calls(program.call, count)
            turn[name] = Seconds(wall / count, cpu / count)
            progress(f"repeat {repeat + 1}/{repeats}, {name}: {turn[name].wall:.4g} s a call")
        turns.append(turn)
        if baseline:
            theirs.append(baseline.run())
            progress(f"repeat {repeat + 1}/{repeats}, baseline: {theirs[-1].wall:.4g} s an image")
    return turns, theirs


def _per_image(programs: Mapping[str, Program], turn: Mapping[str, Seconds]) -> Seconds:
    """Return the seconds per image of the programs together, by their weights."""
    shares = {name: program.weight / program.images for name, program in programs.items()}
    return Seconds(
        sum(share * turn[name].wall for name, share in shares.items()),
        sum(share * turn[name].cpu for name, share in shares.items()),
    )


def _program_report(
    program: Program, count: int, times: Sequence[Seconds], peak: Peak | None
) -> Report:
    wall, cpu = [s.wall for s in times], [s.cpu for s in times]
    images_per_second = program.images / statistics.median(wall)
    return {
        "weight": program.weight,
        **program.facts,
        "calls_per_repeat": count,
        "images_per_call": program.images,
        "seconds_per_call": spread(wall),
        "cpu_seconds_per_call": spread(cpu),
        "seconds_per_image": spread([s / program.images for s in wall]),
        "cpu_seconds_per_image": spread([s / program.images for s in cpu]),
        "images_per_second": rounded(images_per_second),
        "flops_per_image": dict(program.flops_per_image),
        "flops_per_second": {
            method: flops and rounded(flops * images_per_second)
            for method, flops in program.flops_per_image.items()
        },
        "bytes_per_image": program.bytes_per_image,
        **(_shares(program, images_per_second, peak) if peak else {}),
    }


def _shares(program: Program, images_per_second: float, peak: Peak) -> Report:
    per_device = images_per_second / jax.device_count()
    parts = {
        "share_of_matrix_peak": (program.flops_per_image.get("counted"), peak.flops_per_second),
        "share_of_memory_bandwidth": (program.bytes_per_image, peak.bytes_per_second),
    }
    return {
        name: amount and rounded(amount * per_device / limit)
        for name, (amount, limit) in parts.items()
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {
        "median": rounded(statistics.median(values)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
    }


def rounded(value: float) -> float:
    """Round to five significant digits."""
    # Times scatter by per cents: more digits would only be harder to read.
    return float(f"{value:.5g}")


def progress(line: str) -> None:
    """Print a line for the person who waits; the result alone goes to stdout."""
    print(line, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------- baseline


class Baseline(NamedTuple):
    """A command that does comparable work. images: of one run, None: it prints its own figure."""

    command: str
    images: int | None

    def run(self) -> Seconds:
        """Run the command once and return its seconds per image.

        Its standard output, or the last line of it, is a JSON object with "seconds_per_image"
        and maybe "cpu_seconds_per_image". If it is not, the wall and CPU time of the whole run
        are divided by `images`. Raises UserError if the command fails or gives neither.
        """
        wall, cpu = time.perf_counter(), _children_cpu_seconds()
        done = subprocess.run(self.command, shell=True, stdout=subprocess.PIPE, text=True)
        wall, cpu = time.perf_counter() - wall, _children_cpu_seconds() - cpu
        if done.returncode:
            raise UserError(f"--baseline: the command ended with exit code {done.returncode}")
        for text in (done.stdout, *done.stdout.strip().splitlines()[-1:]):
            if figures := _figures(text):
                return figures
        if not self.images:
            raise UserError(
                "--baseline: the output of the command does not end in JSON with a positive "
                '"seconds_per_image"; give --baseline_images=N to divide its wall time instead'
            )
        return Seconds(wall / self.images, cpu / self.images)


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _figures(text: str) -> Seconds | None:
    try:
        report = json.loads(text)
    except json.JSONDecodeError:
        return None
    names = ("seconds_per_image", "cpu_seconds_per_image")
    values = [report.get(name) if isinstance(report, dict) else None for name in names]
    wall, cpu = (v if isinstance(v, int | float) and v > 0 else None for v in values)
    return Seconds(wall, cpu) if wall else None


def _comparison(baseline: Baseline, ours: Sequence[Seconds], theirs: Sequence[Seconds]) -> Report:
    """Return how many times as fast as the baseline we are, pair by pair."""
    pairs = list(zip(ours, theirs, strict=True))
    report = {
        "command": baseline.command,
        "seconds_per_image": spread([b.wall for b in theirs]),
        "ratio": _ratios([b.wall / a.wall for a, b in pairs]),
    }
    if all(b.cpu for b in theirs):
        report["cpu_seconds_per_image"] = spread([b.cpu for b in theirs])
        report["cpu_ratio"] = _ratios([b.cpu / a.cpu for a, b in pairs])
    return report


def _ratios(values: Sequence[float]) -> Report:
    return spread(values) | {"pairs": [rounded(value) for value in values]}
