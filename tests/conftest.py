"""The machine that tests see: four devices on the CPU, programs on disk, checked shapes."""

import os
import signal
from pathlib import Path

from absl import flags
from jaxtyping import install_import_hook

from tests import typechecker
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

# The shapes and dtypes that annotations name are checked at every call of the maths, the networks
# and the metrics. The modules must not have been imported before.
CHECKED = (
    "diffusion",
    "haar",
    "losses",
    "methods",
    "metrics",
    "models",
    "pixels",
    "randomness",
    "sampling",
    "schedules",
)
install_import_hook([f"ddgan_jax.{name}" for name in CHECKED], f"{typechecker.__name__}.check")

# Files of minutes, the longest first.
LONG = (
    "test_training_loop.py",
    "test_signals.py",
    "test_hostile_exports.py",
    "test_jobs.py",
    "test_hostile.py",
    "test_bfloat16.py",
    "test_golden_training.py",
    "test_hosts.py",
    "test_inception.py",
    "test_golden.py",
    "test_golden_gradients.py",
    "test_golden_wavediff.py",
    "test_import.py",
    "test_commands_start.py",
)


def pytest_collection_modifyitems(items):
    """Begin with the long files; the others follow in their order."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))
