"""How long a command takes to begin: imports, help pages, and a run's first step.

    python -m benchmarks.startup --config=configs/digits_ddgan.py

A run is started with an empty compilation cache, a second time with what the first one compiled,
and once more in the first one's folder, where it goes on from the checkpoint. Every figure is that
of a new process, from its start to its end or to the line about its first step. Prints one JSON
object; benchmarks/README.md explains its fields.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import flags

from benchmarks import command, measure
from ddgan_jax.cli.arguments import Flag, parse_config
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import UserError

FLAGS = (
    *command.CONFIG_FLAGS,
    Flag("cold", "N", "repeats with an empty cache, which compile everything", 1, "integer"),
    command.REPEATS_FLAG,
)

_DDGAN = (sys.executable, "-m", "ddgan_jax")
# The package, and what the command `ddgan` imports before it knows what to do, beyond JAX.
_IMPORTS = """
import time, jax
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def benchmark(values: flags.FlagValues, overrides: Sequence[str]) -> measure.Report:
    """Return the fields of the report. Raises UserError if a command fails."""
    validate(parse_config(values.config, overrides))
    if values.cold < 1:
        raise UserError(f"--cold={values.cold} must be positive")
    arguments = [f"--config={values.config}", *overrides]
    repeats = range(values.repeats)
    with tempfile.TemporaryDirectory() as folder:
        cold, warm, resumed = [], [], []
        for number in range(values.cold):
            cache = Path(folder) / f"cache{number}"
            run = Path(folder) / f"run{number}"
            cold.append(_first_step(arguments, run, cache, 1))
        for number in repeats:
            warm.append(_first_step(arguments, Path(folder) / f"warm{number}", cache, 1))
            # The run of the cold start goes on by one step in each repeat.
            resumed.append(_first_step(arguments, run, cache, number + 2))
    return {
        "config": values.config,
        "repeats": values.repeats,
        "import_beyond_jax_seconds": {
            module: measure.spread([_import_seconds(module) for _ in repeats])
            for module in ("ddgan_jax", "ddgan_jax.cli", "ddgan_jax.training.loop")
        },
        "help_seconds": measure.spread([_seconds([*_DDGAN, "--help"]) for _ in repeats]),
        "first_step_seconds": {
            "cold": measure.spread(cold),
            "warm": measure.spread(warm),
            "resumed": measure.spread(resumed),
        },
    }


def _first_step(arguments: Sequence[str], workdir: Path, cache: Path, step: int) -> float:
    """Return the seconds until a run that does just the given step prints its line."""
    argv = [
        *(*_DDGAN, "train", *arguments, f"--workdir={workdir}"),
        *(f"--config.train.num_steps={step}", "--config.log.every_steps=1"),
    ]
    # A cache of its own: the user's would hold the programs already.
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    found: dict[str, float] = {}

    def note(line: str, seconds: float) -> None:
        if line.startswith(f"step {step}/"):
            found.setdefault("seconds", seconds)

    _run(argv, environment, note)
    if not found:
        raise UserError(f"{' '.join(argv)} did not tell of step {step}")
    measure.progress(f"{workdir.name}: step {step} after {found['seconds']:.3g} s")
    return found["seconds"]


def _run(
    argv: Sequence[str], environment: Mapping[str, str], note: Callable[[str, float], None]
) -> float:
    """Return the seconds of a process. note(line, seconds since its start): for each line."""
    start = time.perf_counter()
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            note(line, time.perf_counter() - start)
    if process.returncode:
        raise UserError(f"{' '.join(argv)} ended with exit code {process.returncode}")
    return time.perf_counter() - start


def _seconds(argv: Sequence[str]) -> float:
    return _run(argv, os.environ, lambda line, seconds: None)


def _import_seconds(module: str) -> float:
    printed = []
    program = _IMPORTS.format(module=module)
    _run([sys.executable, "-c", program], os.environ, lambda line, _: printed.append(line))
    return float(printed[-1])


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    sys.exit(command.run("startup", __doc__, FLAGS, benchmark))
