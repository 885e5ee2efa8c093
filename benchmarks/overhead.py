"""What a run adds to its train steps: reading data, logging, grids of samples, checkpoints.

    python -m benchmarks.overhead --config=configs/digits_ddgan.py

The step is timed on a constant batch and, in turns with that, on batches of the data set as they
are read, with their transfer to the devices. What happens now and then is timed alone and spread
over the steps between two times (log.every_steps and so on). Prints one JSON object;
benchmarks/README.md explains its fields.
"""

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from benchmarks import command, measure
from benchmarks.train_step import r1_share
from ddgan_jax import build, data, distributed, images, randomness
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.checks import validate
from ddgan_jax.data.pipeline import AHEAD
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import drawing
from ddgan_jax.state import Batch, TrainState
from ddgan_jax.training import reporter

FLAGS = ()


class Training(NamedTuple):
    """A compiled step, and the state that it moves on."""

    step: Callable[..., tuple[TrainState, Any]]
    # A list of one entry: each step consumes the state before it.
    state: list[TrainState]
    key: jax.Array
    constant: Batch

    def run(self, batch: Batch) -> Any:
        """Do one step on a placed batch and return its metrics."""
        self.state[0], metrics = self.step(self.state[0], batch, self.key)
        return metrics


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the fields of the report. Raises UserError if the data set cannot be read."""
    devices = jax.devices()
    validate(config, len(devices))
    dataset = data.open_dataset(config)
    # One stack closes the pipeline, the reporter and the checkpoints, the last opened first.
    with ExitStack() as stack:
        batches = stack.enter_context(
            closing(
                data.batches(
                    dataset,
                    batch_size=config.train.batch_size,
                    seed=config.train.seed,
                    start_step=0,
                )
            )
        )
        training = _training(config, next(batches))
        constant, real = _take_turns(config, training, batches, values.repeats)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Lines about metrics go to stdout, which is for the result here.
        stack.enter_context(redirect_stdout(sys.stderr))
        events = _events(config, training, folder, values.repeats, stack)
    step = statistics.median(constant)
    every = {
        "metrics": config.log.every_steps,
        "samples": config.log.samples_every_steps,
        "checkpoint": config.checkpoint.save_every_steps,
    }
    medians = {name: statistics.median(times) for name, times in events.items()}
    shares = {name: medians[name] / every[name] / step for name in every}
    return {
        "batch_size": config.train.batch_size,
        "repeats": values.repeats,
        "seconds_per_step": {
            "constant_batch": measure.spread(constant),
            "real_data": measure.spread(real),
        },
        "real_data_over_constant": measure.spread(
            [b / a for a, b in zip(constant, real, strict=True)]
        ),
        "seconds_each_time": {name: measure.spread(times) for name, times in events.items()},
        "every_steps": every,
        "share_of_step_time": {
            **{name: measure.rounded(share) for name, share in shares.items()},
            "together": measure.rounded(sum(shares.values())),
        },
    }


def _training(config: ConfigDict, batch: Batch) -> Training:
    """Compile the program of most steps, with a new state. batch: the constant one."""
    devices = jax.devices()
    key = randomness.run_key(config.train.seed)
    create = functools.partial(build.initial_state, config, key)
    state = distributed.create_replicated(create, devices)
    constant = distributed.place_batch(batch, config.train.mapping, devices)
    measure.progress("step: compiling")
    # The program that most steps run stands for all of them.
    step = build.step(config, r1=r1_share(config, True) > 0.5)
    mapped = distributed.map_step(step, config.train.mapping, devices)
    compiled = measure.compile_program(mapped, state, constant, key)
    return Training(compiled.call, [state], key, constant)


def _take_turns(
    config: ConfigDict, training: Training, batches: Iterator[Batch], repeats: int
) -> tuple[list[float], list[float]]:
    """Return the seconds per step on a constant batch and on real ones, repeat by repeat."""
    devices = jax.devices()

    def on_data() -> Any:
        batch = distributed.place_batch(next(batches), config.train.mapping, devices)
        return training.run(batch)

    on_constant = functools.partial(training.run, training.constant)
    measure.progress("step: warm-up")
    count = measure.warm_up(on_constant)
    measure.time_calls(on_data, count)
    constant, real = [], []
    for repeat in range(repeats):
        constant.append(measure.time_calls(on_constant, count).wall / count)
        # Prepared while the constant batch was used: these would cost nothing.
        measure.time_calls(on_data, AHEAD)
        real.append(measure.time_calls(on_data, count).wall / count)
        measure.progress(f"repeat {repeat + 1}: {constant[-1]:.4g} s, {real[-1]:.4g} s with data")
    return constant, real


def _events(
    config: ConfigDict, training: Training, folder: Path, repeats: int, stack: ExitStack
) -> Mapping[str, list[float]]:
    """Return the seconds for which each event keeps the training waiting, by name and repeat."""
    devices = jax.devices()
    out = stack.enter_context(
        reporter.Reporter(RunFolder.at(folder), steps_done=0, num_steps=repeats, batch_size=1)
    )
    checkpoints = stack.enter_context(
        Checkpoints(folder / "checkpoints", keep_latest=1, keep_every_steps=0)
    )
    draw, shown = (
        drawing.make_drawer(build.sampler(config), devices, config.sampling.chunk_size),
        drawing.overview(config),
    )
    metrics = jax.device_get(training.run(training.constant))
    [state] = training.state

    def picture() -> Any:
        return images.picture(drawing.draw_all(draw, state.generator.ema_params, shown))

    measure.progress("samples: compiling")
    picture()
    work: dict[str, Callable[[int], Any]] = {
        "metrics": lambda step: out.metrics(step, metrics),
        "samples": lambda step: out.samples(step, picture()),
        "checkpoint": lambda step: checkpoints.save(step, state, config.to_dict()),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for step in range(1, repeats + 1):
        for name, do in work.items():
            start = time.perf_counter()
            do(step)
            times[name].append(time.perf_counter() - start)
        # The next save would otherwise wait for this one, and its time would count twice.
        checkpoints.wait()
    return times


if __name__ == "__main__":
    sys.exit(command.main("overhead", __doc__, FLAGS, benchmark))
