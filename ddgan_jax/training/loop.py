"""Run a training from top to bottom.

    config -> data -> state (new or restored) -> steps -> metrics, grids, checkpoints -> end

What a step reads and draws is a function of (seed, step): running the same command again goes on
from the last checkpoint and ends with the same parameters, bit by bit, as if it had never stopped.
"""

import functools
import os
import shlex
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing

import jax
from ml_collections import ConfigDict

from ddgan_jax import build, data, distributed, progress, randomness
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config import run_config
from ddgan_jax.config.checks import validate
from ddgan_jax.files.paths import run_folder_path
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.state import Batch, Metrics, TrainState
from ddgan_jax.training import health, hooks, hosts, machine, reporter, writers
from ddgan_jax.training.observer import Observer
from ddgan_jax.training.profile import Profile
from ddgan_jax.training.stopping import StopRequest


@randomness.reproducible()
def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    stop: StopRequest | None = None,
    allow_changed_data: bool = False,
    profile: int = 0,
) -> TrainState:
    """Train until train.num_steps in the run folder `workdir`, or go on where it stopped.

    stop: asked after every step, by default never asked; nothing in the process is changed for it.
    allow_changed_data: go on though the data set is not what it was when the run began. profile:
    steps of the main process to trace with JAX's profiler. Returns the final state. Raises
    UserError for everything a user can mend; KeyboardInterrupt or SystemExit, with a checkpoint
    saved, if the process is asked to stop.
    """
    folder, stop = RunFolder(run_folder_path(workdir)), stop or StopRequest()
    devices = distributed.all_devices()
    num_steps, main = config.train.num_steps, distributed.is_main_process()
    dataset, fingerprint = _check(config, folder, len(devices), allow_changed_data)

    with ExitStack() as stack:
        # Entered first and left last, because an exchange can also fail while the other contexts
        # are left.
        stack.enter_context(hosts.lost_peers_end_the_process())
        if main:
            # The lock comes before the first file that is written.
            stack.enter_context(folder.only_writer())
            run_config.write_config(folder, config)

        # --------------------------------------------------------------- state
        key = randomness.run_key(config.train.seed)
        checkpoints = stack.enter_context(_checkpoints(config, folder))
        best = stack.enter_context(hooks.Best(folder, config))
        first, state, layout = _first_state(config, key, devices, checkpoints)
        if main:
            health.check_space(folder.path, state)
            machine.record(folder, first, fingerprint)

        # --------------------------------------------------------------- steps
        out = stack.enter_context(_reporter(config, folder, first))
        train_step = _train_step(config, devices, layout, out)
        batches = stack.enter_context(closing(_batches(config, dataset, devices, first)))
        trace = stack.enter_context(Profile(folder, first, profile if main else 0, out.message))
        observer = Observer(config, dataset, devices, out, checkpoints, best)
        observer.start(first, state)

        # ---------------------------------------------------------------- loop
        step = first
        while step < num_steps:
            # JAX returns before the devices are done, and the loop runs ahead of them until a
            # number is fetched.
            batch = distributed.place_batch(next(batches), config.train.mapping, devices)
            state, metrics = train_step(step, state, batch, key)
            step += 1
            out.step(step, metrics)
            if step == first + 1:
                # Before the first step is done a stop has nothing to save.
                jax.block_until_ready(metrics)
                stack.enter_context(stop.accepted(step, num_steps))
            trace.after(step, metrics)
            stopping = stop.at(step)
            if stopping:
                out.phase("stopping: the devices finish, then a checkpoint")
            observer.after_step(step, state, metrics, stopping=stopping)
            if stopping:
                break

        # ----------------------------------------------------------------- end
        observer.end(step)
        if step < num_steps:
            out.message(f"stopped at step {step}, checkpoint saved")
            stop.leave()
        out.message(_conclusion(folder, step))
    return state


def _check(
    config: ConfigDict, folder: RunFolder, num_devices: int, allow_changed_data: bool
) -> tuple[data.Dataset, str]:
    """Return the data set and its fingerprint. Raises UserError if the run cannot begin or resume.

    Nothing is written, and nothing is compiled, before this has passed.
    """
    validate(config, num_devices, resumed=folder.config.exists())
    writers.check_packages(writers.names(config.log.writers))
    run_config.check_same_run(folder, config, report=reporter.warn)
    with progress.phase("reading data", active=distributed.is_main_process()):
        dataset = data.open_dataset(config, report=reporter.warn)
        fingerprint = data.fingerprint(dataset)
    machine.check_same_data(folder, fingerprint, allow_changed=allow_changed_data)
    return dataset, fingerprint


def _checkpoints(config: ConfigDict, folder: RunFolder) -> Checkpoints:
    return Checkpoints(
        folder.checkpoints,
        keep_latest=config.checkpoint.keep_latest,
        keep_every_steps=config.checkpoint.keep_every_steps,
    )


def _first_state(
    config: ConfigDict, key: jax.Array, devices: distributed.Devices, checkpoints: Checkpoints
) -> tuple[int, TrainState, TrainState]:
    """Return the steps done, the state after them, and its shapes: restored, or new after 0."""
    create_state = functools.partial(build.initial_state, config, key)
    with progress.phase("making the networks", active=distributed.is_main_process()):
        layout = distributed.abstract_state(
            create_state, devices, sharded=config.train.shard_optimizer
        )
        restored = checkpoints.restore(layout, report=print)
        first, state = restored or (0, distributed.create_state(create_state, layout))
    return first, state, layout


def _train_step(
    config: ConfigDict,
    devices: distributed.Devices,
    layout: TrainState,
    out: reporter.Reporter,
) -> Callable[[int, TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """Return train_step(step, state, batch, key) over all devices. step: the steps done so far.

    Behind it are two programs without a branch, with the R1 penalty and without; each is compiled
    when it is first called, as `out` then tells.
    """
    abstract = layout if config.train.shard_optimizer else None
    programs = {
        r1: distributed.map_step(build.step(config, r1=r1), config.train.mapping, devices, abstract)
        for r1 in (True, False)
    }
    # Within an interval of the penalty every kind of step occurs.
    kinds = {build.r1_is_due(config, step) for step in range(config.objective.r1_interval)}
    compiled: set[bool] = set()

    def train_step(
        step: int, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        r1 = build.r1_is_due(config, step)
        if r1 not in compiled:
            compiled.add(r1)
            out.phase(f"compiling the step, program {len(compiled)} of {len(kinds)}")
        return programs[r1](state, batch, key)

    return train_step


def _batches(
    config: ConfigDict, dataset: data.Dataset, devices: distributed.Devices, start_step: int
) -> Generator[Batch, None, None]:
    """Return this process's part of the batches of all steps from `start_step` on."""
    batch_size = config.train.batch_size
    return data.batches(
        dataset,
        batch_size=batch_size,
        seed=config.train.seed,
        start_step=start_step,
        positions=distributed.local_rows(batch_size, devices),
    )


def _reporter(config: ConfigDict, folder: RunFolder, steps_done: int) -> reporter.Reporter:
    return reporter.Reporter(
        folder,
        steps_done=steps_done,
        num_steps=config.train.num_steps,
        batch_size=config.train.batch_size,
        active=distributed.is_main_process(),
        wanted=writers.names(config.log.writers),
        config=config.to_dict(),
        scores=[name] if (name := hooks.best_name(config)) else [],
    )


def _conclusion(folder: RunFolder, step: int) -> str:
    workdir = shlex.quote(os.fspath(folder.path))
    return (
        f"done: {step} steps\n"
        f"samples:      {folder.grid(step)}\n"
        f"sample more:  ddgan sample --workdir={workdir} --seeds=0-99 --out=grid.png"
    )
