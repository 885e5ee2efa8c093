"""Checkpoints: their size, how long a save keeps the training waiting, and the way back.

    python -m benchmarks.checkpoint --config=configs/cifar10_ddgan.py

Writes into a temporary folder ($TMPDIR says on which disk) and prints one JSON object;
benchmarks/README.md explains its fields.
"""

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import command, measure
from ddgan_jax import build, distributed, randomness
from ddgan_jax.checkpoint import Checkpoints, load_ema
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.checks import validate
from ddgan_jax.state import TrainState, num_parameters

FLAGS = ()


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the fields of the report. Raises UserError if the config or the disk does not work."""
    validate(config)
    devices = jax.devices()
    key = randomness.run_key(config.train.seed)
    create = functools.partial(_trained_state, config, key)
    measure.progress("creating the state")
    state = jax.block_until_ready(distributed.create_replicated(create, devices))
    layout = distributed.abstract_state(create, devices)
    with tempfile.TemporaryDirectory() as folder:
        # Each repeat has a folder of its own: a save beside older ones would also delete some.
        times = [
            _save_and_restore(Path(folder) / str(number), state, layout, config)
            for number in range(values.repeats)
        ]
        measure.progress("folder removed")
    return {
        "repeats": values.repeats,
        "generator_parameters": num_parameters(state.generator.params),
        "discriminator_parameters": num_parameters(state.discriminator.params),
        "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "bytes_on_disk": times[0].pop("bytes_on_disk"),
        **{
            name: measure.spread([time[name] for time in times])
            for name in times[0]
            if name.endswith("_seconds")
        },
    }


def _trained_state(config: ConfigDict, key: jax.Array) -> TrainState:
    """Return a state with moments as random as parameters: zeros would compress to nothing."""
    state = build.initial_state(config, key)

    def with_moments(network: Any) -> Any:
        adam, *rest = network.opt_state
        adam = adam._replace(
            mu=jax.tree.map(lambda p: 0.1 * p, network.params),
            nu=jax.tree.map(jnp.square, network.params),
        )
        return network._replace(opt_state=(adam, *rest))

    return state._replace(
        generator=with_moments(state.generator), discriminator=with_moments(state.discriminator)
    )


def _save_and_restore(
    folder: Path, state: TrainState, layout: Any, config: ConfigDict
) -> dict[str, float]:
    with Checkpoints(folder, keep_latest=1, keep_every_steps=0) as checkpoints:
        start = time.perf_counter()
        checkpoints.save(int(state.step), state, config.to_dict())
        returned = time.perf_counter()
        # A save returns when the arrays are copied, and goes on in the background.
        checkpoints.wait()
        durable = time.perf_counter()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        restore = _seconds(lambda: checkpoints.restore(layout, report=measure.progress))
    times = {
        "bytes_on_disk": size,
        "save_blocks_seconds": returned - start,
        "save_durable_seconds": durable - start,
        "restore_seconds": restore,
        "load_ema_seconds": _seconds(lambda: load_ema(folder, report=measure.progress)),
    }
    measure.progress(", ".join(f"{name} {value:.3g}" for name, value in times.items()))
    return times


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(command.main("checkpoint", __doc__, FLAGS, benchmark))
