"""Run the command line of the benchmarks, and describe the machine in every report."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import flags

import ddgan_jax
from benchmarks.measure import Baseline, Report
from ddgan_jax.cli.arguments import CONFIG_FLAGS, Flag, parse_config, parse_flags
from ddgan_jax.cli.program import USER_ERROR
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.files import leaves, load_config
from ddgan_jax.errors import UserError
from ddgan_jax.signals import INTERRUPTED

REPEATS_FLAG = Flag("repeats", "N", "timed repeats", 5, "integer")
BASELINE_FLAGS = (
    Flag("baseline", "COMMAND", "shell command to compare with, run after each of our repeats"),
    Flag("baseline_images", "N", "images of one run of a baseline without JSON", kind="integer"),
)
PEAK_FLAG = Flag("peak", "FILE", "report of benchmarks.peak: adds the shares of it")


def baseline_of(values: flags.FlagValues) -> Baseline | None:
    """Return the baseline that the flags name. Raises UserError if they make no sense."""
    if values.baseline_images is not None and values.baseline_images < 1:
        raise UserError(f"--baseline_images={values.baseline_images} must be positive")
    return Baseline(values.baseline, values.baseline_images) if values.baseline else None


def main(
    name: str,
    page: str,
    own_flags: Sequence[Flag],
    benchmark: Callable[[flags.FlagValues, ConfigDict], Report],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a benchmark of a config, print its report as JSON and return the exit code.

    page: text of the help page, the module's docstring. own_flags: flags besides those of every
    benchmark. argv: without the program's name.
    """

    def of_config(values: flags.FlagValues, overrides: Sequence[str]) -> Report:
        config = parse_config(values.config, overrides)
        return {
            "config": values.config,
            "overrides": _overrides(values.config, config),
            **benchmark(values, config),
        }

    return run(name, page, (*CONFIG_FLAGS, *own_flags, REPEATS_FLAG), of_config, argv)


def run(
    name: str,
    page: str,
    known: Sequence[Flag],
    benchmark: Callable[[flags.FlagValues, Sequence[str]], Report],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a benchmark with flags of its own, as `main` does: benchmark(values, overrides)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(f"{page.strip()}\n\nFlags:\n{flag_lines(known)}")
        return 0
    # Libraries (Grain's workers) ask absl's own registry of flags, which stays empty.
    flags.FLAGS.mark_as_parsed()

    # The report is made inside of `exit_code`, which turns the user's mistakes into one line.
    def print_report() -> int:
        values, overrides = parse_flags(f"python -m benchmarks.{name}", known, argv)
        if values.repeats < 1:
            raise UserError(f"--repeats={values.repeats} must be positive")
        if "baseline" in values and values.baseline:
            # JAX would reserve most of a GPU's memory, and the baseline needs some too.
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        report = {
            "benchmark": name,
            "command": shlex.join(["python", "-m", f"benchmarks.{name}", *argv]),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "compilation_cache": bool(jax.config.jax_compilation_cache_dir),
            **benchmark(values, overrides),
            **peak_memory(),
        }
        print(json.dumps(report, indent=2))
        return 0

    return exit_code(name, print_report)


def exit_code(name: str, main: Callable[[], int]) -> int:
    """Return what `main` returns; after a mistake of the user print one line, and return 2."""
    try:
        return main()
    except UserError as error:
        print(f"benchmarks.{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"benchmarks.{name}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _overrides(path: str, config: ConfigDict) -> Report:
    original = dict(leaves(load_config(path)))
    # Only the fields that the command line has changed, so that reports stay short.
    return {field: value for field, value in leaves(config) if value != original[field]}


def flag_lines(known: Sequence[Flag]) -> str:
    """Return the lines of a help page about flags."""
    lines = []
    for flag in known:
        remark = " (required)" if flag.required else ""
        remark = remark or (f" (default {flag.default})" if flag.default else "")
        lines.append(f"  --{f'{flag.name}={flag.value}':<25} {flag.help}{remark}")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------- environment


def machine() -> Report:
    """Return a description of the machine, and its load before: the runnable processes."""
    devices = jax.devices()
    return {
        "processor": _processor_name(),
        # A container may be given fewer cores than the machine has.
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
    }


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python, of this project, and of the libraries that compile it."""
    found = {"python": platform.python_version(), "ddgan_jax": ddgan_jax.__version__}
    for name in ("jax", "jaxlib", "flax", "torch"):
        # PyTorch, which some are compared with, is not everywhere.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def peak_memory() -> Report:
    """Return the largest memory of this process so far; None for a device without a count."""
    # macOS counts in bytes, Linux in kilobytes.
    unit = 1 if sys.platform == "darwin" else 1024
    device_memory = jax.local_devices()[0].memory_stats() or {}
    return {
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_device_bytes": device_memory.get("peak_bytes_in_use"),
    }
