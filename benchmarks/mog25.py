"""Speed of the training loop of the 25 Gaussians: seeds side by side, many steps in one call.

    python -m benchmarks.mog25 --config=configs/mog25.py:siddm --config.train.batch_size=512

Prints one JSON object; benchmarks/README.md explains its fields. An image is a point here.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import command, measure
from ddgan_jax import build, randomness
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.config import POINT_SETS, ConfigDict, has_points
from ddgan_jax.config.checks import validate
from ddgan_jax.data import mixture
from ddgan_jax.data.order import example_ids
from ddgan_jax.errors import UserError
from ddgan_jax.experiments import mog25
from ddgan_jax.inspection import costs

FLAGS = (
    Flag("seeds", "N", "runs side by side", 1, "integer"),
    Flag("steps_per_call", "N", "steps in one call", mog25.STEPS_PER_CALL, "integer"),
    *command.BASELINE_FLAGS,
    command.PEAK_FLAG,
)


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the fields of the report. Raises UserError for a config of other data."""
    baseline = command.baseline_of(values)
    validate(config)
    if not has_points(config):
        raise UserError(f"data.name={config.data.name!r} is not one of {', '.join(POINT_SETS)}")
    if values.seeds < 1 or values.steps_per_call < 1:
        raise UserError("--seeds and --steps_per_call must be positive")
    program = make_program(config, values.seeds, values.steps_per_call)
    peak = measure.read_peak(values.peak, config.train.compute_dtype)
    report = measure.measure({"many_steps": program}, values.repeats, baseline, peak)
    points_per_iteration = config.train.batch_size * values.seeds
    return {
        "batch_size": config.train.batch_size,
        "seeds": values.seeds,
        "iterations_per_second": measure.rounded(
            report["images_per_second"] / points_per_iteration
        ),
        "cpu_seconds_per_iteration": measure.rounded(
            report["cpu_seconds_per_image"] * points_per_iteration
        ),
        **report,
    }


def make_program(config: ConfigDict, seeds: int, steps: int) -> measure.Program:
    """Compile the loop of `steps` iterations of all seeds, on data that stays on the device."""
    points = jnp.asarray(mixture.to_set(config.data.name, mixture.points()[0]))
    keys = jax.vmap(randomness.run_key)(jnp.arange(seeds, dtype=jnp.uint32))
    states = jax.jit(jax.vmap(lambda key: build.initial_state(config, key)))(keys)
    batch_size = config.train.batch_size
    order = [example_ids(0, step, batch_size, len(points)) for step in range(steps)]
    ids = jnp.asarray(np.broadcast_to(order, (seeds, steps, batch_size)), jnp.int32)
    measure.progress("compiling")
    many_steps = jax.jit(mog25.make_many_steps(config), donate_argnums=0)
    compiled = measure.compile_program(many_steps, states, keys, points, ids)

    def call() -> Any:
        # The states are donated: each call consumes those of the call before.
        nonlocal states
        states, metrics = compiled.call(states, keys, points, ids)
        return metrics

    # XLA's own counts would be those of a single iteration: it does not multiply loops.
    return measure.Program(
        call=call,
        images=steps * batch_size * seeds,
        flops_per_image={
            "counted": costs.train_step_flops(config, r1=config.objective.r1_gamma > 0)
        },
        facts=compiled.facts,
    )


if __name__ == "__main__":
    sys.exit(command.main("mog25", __doc__, FLAGS, benchmark))
