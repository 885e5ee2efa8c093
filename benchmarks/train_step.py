"""Speed of the train step, on one constant batch of noise: data pipeline and logging left out.

    python -m benchmarks.train_step --config=configs/cifar10_ddgan.py \\
        --config.train.batch_size=4 --r1=both

Prints one JSON object; benchmarks/README.md explains its fields. --r1=both times the programs with
and without the R1 penalty in turns; the figures at the top then mix them as often as training runs
each (objective.r1_interval).
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import command, measure
from ddgan_jax import build, distributed, randomness
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import UserError
from ddgan_jax.inspection import costs
from ddgan_jax.state import Batch

FLAGS = (
    Flag("r1", "yes|no|both", "time the step with the R1 penalty", "both"),
    *command.BASELINE_FLAGS,
    command.PEAK_FLAG,
)

_NAMES = {False: "without_r1", True: "with_r1"}
R1_CHOICES = {"yes": (True,), "no": (False,), "both": (False, True)}


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the report's fields. Raises UserError if the config cannot train on the devices."""
    if values.r1 not in R1_CHOICES:
        raise UserError(f"--r1={values.r1} is not one of {', '.join(R1_CHOICES)}")
    baseline = command.baseline_of(values)
    validate(config, jax.device_count())
    fields = {
        "batch_size": config.train.batch_size,
        "compute_dtype": config.train.compute_dtype,
        "mapping": config.train.mapping,
    }
    programs = make_programs(config, R1_CHOICES[values.r1])
    peak = measure.read_peak(values.peak, config.train.compute_dtype)
    return fields | measure.measure(programs, values.repeats, baseline, peak)


def make_programs(config: ConfigDict, choices: tuple[bool, ...]) -> dict[str, measure.Program]:
    """Compile the steps with or without R1, or both, which share one state."""
    devices = jax.devices()
    key = randomness.run_key(config.train.seed)
    state = distributed.create_replicated(
        functools.partial(build.initial_state, config, key), devices
    )
    # The batch is placed once: its transfer belongs to the pipeline, and not to the step.
    batch = distributed.place_batch(noise_batch(config), config.train.mapping, devices)
    images = config.train.batch_size
    compiled = {}
    for r1 in choices:
        measure.progress(f"{_NAMES[r1]}: compiling")
        step = build.step(config, r1=r1)
        mapped = distributed.map_step(step, config.train.mapping, devices)
        compiled[r1] = measure.compile_program(mapped, state, batch, key)

    def call_of(step: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            # Each step consumes the state before it.
            nonlocal state
            state, metrics = step(state, batch, key)
            return state, metrics

        return call

    return {
        _NAMES[r1]: measure.Program(
            call=call_of(program.call),
            images=images,
            weight=r1_share(config, r1) if len(choices) > 1 else 1.0,
            flops_per_image={
                "counted": costs.train_step_flops(config, r1=r1),
                # XLA counts the operations of one device.
                "xla": program.flops and program.flops * len(devices) / images,
            },
            bytes_per_image=program.bytes and program.bytes * len(devices) / images,
            facts=program.facts,
            executable=program.call,
        )
        for r1, program in compiled.items()
    }


def r1_share(config: ConfigDict, r1: bool) -> float:
    """Return the share of a run's steps that compute the R1 penalty, or that do not."""
    # Step 0 computes the penalty wherever any step does.
    share = 1 / config.objective.r1_interval if build.r1_is_due(config, 0) else 0.0
    return share if r1 else 1 - share


def noise_batch(config: ConfigDict) -> Batch:
    """Return a batch of uniform noise: a step takes as long on it as on pictures."""
    size, count = config.data.image_size, config.train.batch_size
    shape = (count, size, size, config.data.channels)
    return Batch(
        image=np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        label=np.zeros(count, np.int32),
        index=np.arange(count, dtype=np.int32),
    )


if __name__ == "__main__":
    sys.exit(command.main("train_step", __doc__, FLAGS, benchmark))
