"""Take the first train step of a config: does it compile, does it fit, how long does each take.

    python -m benchmarks.first_steps --config=configs/cifar10_ddgan.py --config.train.batch_size=64

Prints one JSON object; benchmarks/README.md explains its fields. A config that the compiler or the
device refuses is a finding too: the report then has `error`, and the exit code is 0.

Several of these may compile side by side. With --turn=FILE they make their states and take their
steps one after the other, so that memory and step time are those of one alone.
"""

import contextlib
import fcntl
import functools
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import flags

from benchmarks import command, measure
from benchmarks.train_step import noise_batch
from ddgan_jax import build, distributed, randomness
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import UserError, reason
from ddgan_jax.state import num_parameters

FLAGS = (
    Flag("r1", "yes|no", "the step with the R1 penalty; without it as a run's first step", ""),
    Flag("turn", "FILE", "lock of those that take their steps one after the other", ""),
)


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the report's fields. Raises UserError if the config cannot train on the devices."""
    choices = {"yes": True, "no": False, "": build.r1_is_due(config, 0)}
    if values.r1 not in choices:
        raise UserError(f"--r1={values.r1} is neither yes nor no")
    validate(config, jax.device_count())
    memory = jax.local_devices()[0].memory_stats() or {}
    report = {
        "batch_size": config.train.batch_size,
        "compute_dtype": config.train.compute_dtype,
        "mapping": config.train.mapping,
        "r1": choices[values.r1],
        "repeats": values.repeats,
        "device_memory_bytes": memory.get("bytes_limit"),
    }
    try:
        _take_steps(config, choices[values.r1], values.repeats, values.turn, report)
    # Compilers and devices raise whatever they like, most often that memory is exhausted.
    except Exception as error:
        report["error"] = f"{type(error).__name__}: {reason(error)}"
    return report


def _take_steps(
    config: ConfigDict, r1: bool, repeats: int, turn: str, report: measure.Report
) -> None:
    """Compile the step and take it; add each figure to the report as soon as it is known."""
    devices, sharded = jax.devices(), config.train.shard_optimizer
    key = randomness.run_key(config.train.seed)
    create_state = functools.partial(build.initial_state, config, key)
    layout = distributed.abstract_state(create_state, devices, sharded=sharded)
    report["parameters"] = num_parameters([layout.generator.params, layout.discriminator.params])
    batch = distributed.place_batch(noise_batch(config), config.train.mapping, devices)
    mapped = distributed.map_step(
        build.step(config, r1=r1), config.train.mapping, devices, layout if sharded else None
    )
    # Shapes are enough to compile: no memory is taken before it is this program's turn.
    compiled = measure.compile_program(mapped, layout, batch, key)
    report |= compiled.facts
    with _turn(turn):
        state = distributed.create_state(create_state, layout)
        jax.block_until_ready(state)
        seconds, metrics = [], {}
        for _ in range(1 + repeats):
            start = time.perf_counter()
            state, metrics = compiled.call(state, batch, key)
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - start)
    report["first_step_seconds"] = measure.rounded(seconds[0])
    report["step_seconds"] = measure.spread(seconds[1:])
    report["metrics_are_finite"] = all(math.isfinite(x) for x in jax.tree.leaves(metrics))


@contextlib.contextmanager
def _turn(file: str) -> Iterator[None]:
    """Hold the lock inside the context, if a file is named. It ends with the process, too."""
    if not file:
        yield
        return
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    sys.exit(command.main("first_steps", __doc__, FLAGS, benchmark))
