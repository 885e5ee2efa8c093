"""Steps per second with the same batch divided among more and more devices that the CPU plays.

    python -m benchmarks.devices --config=configs/digits_ddgan.py --counts=1,2,4,8

The devices share the machine's cores, so nothing can become faster: what becomes slower is the cost
of dividing a step and of meeting for the gradients. Each number of devices is a process of its own
that runs `benchmarks.train_step`. Prints one JSON object; benchmarks/README.md explains its fields.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from benchmarks import command, measure
from ddgan_jax.cli.arguments import Flag, parse_config
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import UserError

FLAGS = (
    *command.CONFIG_FLAGS,
    Flag("counts", "LIST", "numbers of devices", "1,2,4,8"),
    command.REPEATS_FLAG,
)


def benchmark(values: flags.FlagValues, overrides: Sequence[str]) -> measure.Report:
    """Return the report's fields. Raises UserError if a count does not divide the batch."""
    config = parse_config(values.config, overrides)
    counts = _counts(values.counts, config)
    arguments = [f"--config={values.config}", f"--repeats={values.repeats}", *overrides]
    # JAX fixes the number of devices when it starts, so that each number needs a process.
    runs = {str(count): _train_step(count, config, arguments) for count in counts}
    return {
        "config": values.config,
        "batch_size": config.train.batch_size,
        "repeats": values.repeats,
        "devices": {
            count: {
                "steps_per_second": measure.rounded(
                    run["images_per_second"] / config.train.batch_size
                ),
                "cpu_seconds_per_step": measure.rounded(
                    run["cpu_seconds_per_image"] * config.train.batch_size
                ),
                "load_before": run["machine"]["load_before"],
            }
            for count, run in runs.items()
        },
    }


def _counts(text: str, config: ConfigDict) -> list[int]:
    if not all(part.isdecimal() and int(part) for part in text.split(",")):
        raise UserError(f"--counts={text} is not a list of positive numbers such as 1,2,4")
    counts = [int(part) for part in text.split(",")]
    for count in counts:
        validate(config, count)
    return counts


def _train_step(count: int, config: ConfigDict, arguments: Sequence[str]) -> measure.Report:
    measure.progress(f"{count} devices")
    # Devices on few cores reach a collective at very different times, and XLA would give up.
    options = (
        f"--xla_force_host_platform_device_count={count} "
        "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120 "
        "--xla_cpu_collective_call_terminate_timeout_seconds=600"
    )
    environment = os.environ | {"XLA_FLAGS": options, "JAX_PLATFORMS": "cpu"}
    # The program that most steps of the config run.
    r1 = "yes" if config.objective.r1_gamma > 0 and config.objective.r1_interval == 1 else "no"
    argv = [sys.executable, "-m", "benchmarks.train_step", *arguments, f"--r1={r1}"]
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(argv)} ended with exit code {done.returncode}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(command.run("devices", __doc__, FLAGS, benchmark))
