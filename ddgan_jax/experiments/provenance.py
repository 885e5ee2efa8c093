"""Say where a number comes from: command, commit, machine, versions, time."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import ddgan_jax
from ddgan_jax import distributed


def describe(command: str) -> dict[str, Any]:
    """Return what the numbers of this process depend on, in values that JSON can hold.

    command: the one that makes these numbers again.
    """
    return {
        "command": command,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            # The cores that this process may use: fewer than there are, if it is held to some.
            "cores": _cores(),
            "device_kind": distributed.all_devices()[0].device_kind,
        },
        "versions": {
            "python": platform.python_version(),
            "ddgan_jax": ddgan_jax.__version__,
            "jax": jax.__version__,
        },
    }


def commit() -> str:
    """Return the commit of the checkout that this package is part of, "" for an installed one.

    "+" behind it says that files of the package were changed since.
    """
    root = Path(__file__).parents[2]
    git = ("git", "-C", str(root))
    try:
        top = _output(*git, "rev-parse", "--show-toplevel")
        # An environment may lie in somebody else's repository.
        if Path(top).resolve() != root.resolve():
            return ""
        changed = _output(*git, "status", "--porcelain", "--", "ddgan_jax", "configs")
        return _output(*git, "rev-parse", "HEAD")[:12] + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def cpu_seconds() -> float:
    """Return the processor time of this process so far, over all its threads."""
    times = os.times()
    return times.user + times.system


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _cores() -> int | None:
    # macOS has no such sets.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
