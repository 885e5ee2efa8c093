"""The training run, from top to bottom.

    config -> data -> state (new or restored) -> steps -> metrics, grids, checkpoints -> end

What a step reads and draws is a function of (seed, step): running the same command again goes on
from the last checkpoint and ends with the same parameters, bit by bit, as if it had never stopped.
"""

import functools
import os
import shlex
from contextlib import ExitStack, closing

import jax
from ml_collections import ConfigDict

from ddgan_jax import build, data, distributed, images, randomness
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config import run_config
from ddgan_jax.config.checks import validate
from ddgan_jax.files.paths import run_folder_path
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import drawing
from ddgan_jax.state import TrainState, num_parameters
from ddgan_jax.training import health, hooks, hosts, machine, reporter
from ddgan_jax.training.stopping import StopRequest


@randomness.reproducible()
def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    stop: StopRequest | None = None,
    allow_changed_data: bool = False,
) -> TrainState:
    """Train until train.num_steps in the run folder `workdir`, or go on where it stopped.

    stop: asked after every step, by default never asked; nothing in the process is changed for it.
    allow_changed_data: go on though the data set is not what it was when the run began. Returns the
    final state. Raises UserError for everything a user can mend; KeyboardInterrupt or SystemExit,
    with a checkpoint saved, if the process is asked to stop.
    """
    # ------------------------------------------------------------------ config
    folder, stop = RunFolder(run_folder_path(workdir)), stop or StopRequest()
    devices = distributed.all_devices()
    validate(config, len(devices), resumed=folder.config.exists())
    run_config.check_same_run(folder, config, report=reporter.warn)
    dataset = data.open_dataset(config)
    fingerprint = data.fingerprint(dataset)
    machine.check_same_data(folder, fingerprint, allow_changed=allow_changed_data)
    num_steps, batch_size = config.train.num_steps, config.train.batch_size
    first_process = distributed.is_first_process()

    with ExitStack() as stack:
        stack.enter_context(hosts.lost_peers_end_the_process())
        if first_process:
            stack.enter_context(folder.only_writer())
            run_config.write_config(folder, config)
        # -------------------------------------------------------------- state
        key = randomness.run_key(config.train.seed)
        create_state = functools.partial(build.initial_state, config, key)
        checkpoints = stack.enter_context(
            Checkpoints(
                folder.checkpoints,
                keep_latest=config.checkpoint.keep_latest,
                keep_every_steps=config.checkpoint.keep_every_steps,
            )
        )
        best = stack.enter_context(hooks.Best(folder, config))
        divided = config.train.shard_optimizer
        layout = distributed.abstract_state(create_state, devices, divided=divided)
        restored = checkpoints.restore(layout, report=print)
        step, state = restored or (0, distributed.create_state(create_state, layout))
        if first_process:
            health.check_space(folder.path, state)
            machine.record(folder, step, fingerprint)

        # -------------------------------------------------------------- steps
        map_step = functools.partial(
            distributed.map_step,
            mapping=config.train.mapping,
            devices=devices,
            abstract=layout if divided else None,
        )
        # Two programs without a branch; each is compiled when it is first called.
        programs = {r1: map_step(build.step(config, r1=r1)) for r1 in (True, False)}
        draw = drawing.make_drawer(
            build.sampler(config), distributed.local(devices), config.sampling.chunk_size
        )
        shown = drawing.overview(config)
        picture_steps = hooks.make_step_picture(
            build.sampler(config), shown, distributed.local(devices)
        )
        learning_rates = {
            "g": build.learning_rate(config, "generator"),
            "d": build.learning_rate(config, "discriminator"),
        }
        batches = stack.enter_context(
            closing(
                data.batches(
                    dataset,
                    batch_size=batch_size,
                    seed=config.train.seed,
                    start_step=step,
                    positions=distributed.local_rows(batch_size, devices),
                )
            )
        )
        out = stack.enter_context(
            reporter.Reporter(
                folder,
                steps_done=step,
                num_steps=num_steps,
                batch_size=batch_size,
                active=first_process,
            )
        )
        out.message(_introduction(config, dataset.info, state, devices, step))
        # What will be needed in an hour is compiled and tried now.
        ema_params = distributed.whole(state.generator._replace(opt_state=()), devices).ema_params
        health.check_state(step, state, ema_params, draw, shown)
        if picture_steps and first_process:
            picture_steps(ema_params)
        evaluate = None
        if config.eval.every_steps and first_process and step < num_steps:
            evaluate = hooks.make_scores(config, dataset, draw, out.message)

        # --------------------------------------------------------------- loop
        metrics, unchecked, accepted = {}, {}, False
        while step < num_steps:
            batch = distributed.place_batch(next(batches), config.train.mapping, devices)
            program = programs[build.r1_is_due(config, step)]
            state, step_metrics = program(state, batch, key)
            step += 1
            out.step(step)
            if not accepted:  # before this step a stop has nothing to save
                jax.block_until_ready(step_metrics)
                stack.enter_context(stop.accepted())
                accepted = True

            # Metrics stay on the devices until a line is due: fetching them waits for the step.
            metrics |= step_metrics
            unchecked[step] = step_metrics
            stopping = stop.at(step)
            last = step == num_steps or stopping
            save_now = last or step % config.checkpoint.save_every_steps == 0
            eval_now = hooks.is_due(step, config.eval.every_steps, num_steps)
            log_now = save_now or eval_now or step % config.log.every_steps == 0
            sample_now = step == num_steps or step % config.log.samples_every_steps == 0
            if log_now or sample_now:
                generator = distributed.whole(state.generator._replace(opt_state=()), devices)
            scores = {}
            if log_now:
                health.check_metrics(jax.device_get(unchecked))
                unchecked.clear()
                if save_now or eval_now:
                    health.check_state(step, state, generator.ema_params, draw, shown)
                if eval_now and evaluate:
                    scores = evaluate(generator.ema_params)
                line = metrics | hooks.state_metrics(step, generator, learning_rates) | scores
                out.metrics(step, {name: float(value) for name, value in line.items()})
            if eval_now and best.save_if_better(step, scores, state):
                out.message(f"step {step} is the best so far, kept in {best.folder.path}")
            if sample_now and first_process:
                drawn = drawing.draw_all(draw, generator.ema_params, shown)
                out.samples(step, images.picture(drawn))
                if picture_steps:
                    out.trajectory(step, picture_steps(generator.ema_params))
            if save_now:
                best.wait()  # so that a run that goes on from here finds it whole
                checkpoints.save(step, state, config.to_dict())
            if stopping:
                break

        # ---------------------------------------------------------------- end
        checkpoints.wait()
        checkpoints.check_drawable(step)  # what the run promises is there
        if step < num_steps:
            out.message(f"stopped at step {step}, checkpoint saved")
            stop.leave()
        out.message(_conclusion(folder, step))
    return state


def _introduction(config, info, state: TrainState, devices, step: int) -> str:
    generator, discriminator = (
        num_parameters(network.params) / 1e6 for network in (state.generator, state.discriminator)
    )
    return (
        f"{info.num_examples:,} images of {info.name}, {info.image_size} pixels; "
        f"generator {generator:.2f} M, discriminator {discriminator:.2f} M parameters; "
        f"{len(devices)} x {devices[0].device_kind}\n"
        f"{'continuing after' if step else 'starting at'} step {step} of {config.train.num_steps}; "
        "the first step compiles the program"
    )


def _conclusion(folder: RunFolder, step: int) -> str:
    workdir = shlex.quote(os.fspath(folder.path))
    return (
        f"done: {step} steps\n"
        f"samples:      {folder.grid(step)}\n"
        f"sample more:  ddgan sample --workdir={workdir} --seeds=0-99 --out=grid.png"
    )
