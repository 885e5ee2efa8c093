"""The machine that tests see: four devices on the CPU, and compiled programs kept on disk."""

import os
import signal
from pathlib import Path

import pytest
from absl import flags

from tests.processes import QUICK_COMPILATION

NUM_DEVICES = 4

# Four devices on few cores reach a collective at very different times, and XLA would end the
# process of those that wait too long.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={NUM_DEVICES}",
        "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120",
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
        # Tests run small programs once: compiling takes longer than they do.
        QUICK_COMPILATION,
    ]
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compiling is most of the suite's time; a second run finds the programs here.
cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddgan_jax" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# A shell ignores Ctrl-C in what it starts with "&", and so would every program that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# So does `nohup` with SIGHUP.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# As the command line does: Grain's workers ask absl's registry, which pytest never parses.
flags.FLAGS.mark_as_parsed()

_FLAGS = os.environ["XLA_FLAGS"]


@pytest.fixture(autouse=True)
def same_flags(monkeypatch):
    """Give the programs that a test starts this process's flags, to the bit.

    A command that ran here added its own to the environment, too late for JAX here.
    """
    monkeypatch.setenv("XLA_FLAGS", _FLAGS)
