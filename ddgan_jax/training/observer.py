"""Observe a run: its metrics, its health, its scores and its grids, when they are due.

The loop hands over every step's metrics. They stay on the devices until a line is due, because
fetching them waits for the step. A line has the mean of each metric over the steps since the line
before it, over those of them that computed it. Everything that a run needs in an hour is compiled
and tried before its first step.
"""

from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ddgan_jax import build, distributed, images
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.data.datasets import Dataset
from ddgan_jax.inference import drawing
from ddgan_jax.state import GeneratorState, Metrics, Params, TrainState, num_parameters
from ddgan_jax.training import health, hooks
from ddgan_jax.training.reporter import Reporter


class Due(NamedTuple):
    """The things that follow a step.

    early: the line of metrics comes before its time, because the run stops.
    """

    save: bool
    evaluate: bool
    log: bool
    sample: bool
    early: bool


def due(config: ConfigDict, step: int, *, stopping: bool) -> Due:
    """Return the things that follow `step`. stopping: it is the last one for now.

    The last step of a run is followed by everything. What is saved or evaluated is also logged, so
    that every checkpoint and every score has its line of metrics.
    """
    last = step == config.train.num_steps
    save = last or step % config.checkpoint.save_every_steps == 0
    evaluate = hooks.is_due(step, config.eval.every_steps, config.train.num_steps)
    log = save or evaluate or step % config.log.every_steps == 0
    return Due(
        save=save or stopping,
        evaluate=evaluate,
        log=log or stopping,
        sample=last or step % config.log.samples_every_steps == 0,
        early=stopping and not log,
    )


class Observer:
    """Observes a run on all processes; the main process alone scores, draws and writes."""

    def __init__(
        self,
        config: ConfigDict,
        dataset: Dataset,
        devices: distributed.Devices,
        out: Reporter,
        checkpoints: Checkpoints,
        best: hooks.Best,
    ):
        """Take the data set for scores, the devices of all processes, and where things go."""
        self._checkpoints, self._best = checkpoints, best
        self._config, self._dataset, self._devices, self._out = config, dataset, devices, out
        # Each process draws on its own devices, so that one can draw without the others.
        local, sampler = distributed.local(devices), build.sampler(config)
        self._draw = drawing.make_drawer(sampler, local, config.sampling.chunk_size)
        self._request = drawing.overview(config)
        self._step_picture = hooks.make_step_picture(sampler, self._request, local)
        self._learning_rates = {
            "g": build.learning_rate(config, "generator"),
            "d": build.learning_rate(config, "discriminator"),
        }
        # Made in `start`, and on the main process alone.
        self._scores = None
        # Metrics of the steps since the last line. Each is checked, although few are shown.
        self._unchecked: dict[int, Metrics] = {}

    def start(self, step: int, state: TrainState) -> None:
        """Introduce the run, then compile and try what later steps need.

        step: where the run begins or goes on. Raises UserError for a state that is not healthy, and
        if its scores cannot be computed.
        """
        self._out.message(self._introduction(step, state))
        self._out.phase("drawing the first picture")
        ema_params = self._generator(state).ema_params
        health.check_state(step, state, ema_params, self._draw, self._request)
        if not distributed.is_main_process():
            return
        if self._step_picture:
            # The first picture compiles the program for all others.
            self._step_picture(ema_params)
        # A run that has ended already needs no scores.
        if self._config.eval.every_steps and step < self._config.train.num_steps:
            self._out.phase("preparing the evaluation")
            self._scores = hooks.make_scores(
                self._config, self._dataset, self._draw, self._out.message
            )

    def after_step(self, step: int, state: TrainState, metrics: Metrics, *, stopping: bool) -> None:
        """Do what is due after `step`: its line, its scores and grids, its checkpoints.

        metrics: of this step, on the devices. stopping: it is the last one for now. Raises
        UserError if the metrics, those of the steps before, or a state that is to be kept are not
        finite.
        """
        self._unchecked[step] = metrics
        now = due(self._config, step, stopping=stopping)
        # Nothing is fetched from the devices in most steps.
        if not (now.log or now.sample):
            return
        # Gathering shards is work of all processes, whoever needs the result.
        generator = self._generator(state)
        scores = self._tell(step, state, generator, now) if now.log else {}
        if now.sample and distributed.is_main_process():
            self._draw_grids(step, generator.ema_params)
        if now.evaluate and self._best.save_if_better(step, scores, state):
            self._out.message(f"step {step} is the best so far, kept in {self._best.folder.path}")
        if now.save:
            # The best checkpoint is whole before a newer one lets the run resume from there.
            self._best.wait()
            self._checkpoints.save(step, state, self._config.to_dict())

    def end(self, step: int) -> None:
        """Return when the checkpoint of `step`, the last one, is whole."""
        self._out.phase("writing the last checkpoint")
        self._checkpoints.wait()
        # A run calls itself done after its last checkpoint has been read back.
        self._checkpoints.check_drawable(step)

    def _tell(
        self, step: int, state: TrainState, generator: GeneratorState, now: Due
    ) -> dict[str, float]:
        """Check the run, write the line of `step`, and return its scores, {} if there are none."""
        self._average()
        if now.save or now.evaluate:
            health.check_state(step, state, generator.ema_params, self._draw, self._request)
        scores: dict[str, float] = {}
        if now.evaluate and self._scores:
            scores = self._scores(generator.ema_params)
        found = {
            name: float(value)
            for name, value in hooks.state_metrics(step, generator, self._learning_rates).items()
        }
        self._out.metrics(step, self._out.averages.means() | found | scores)
        if now.early:
            self._out.keep_averages(step)
        else:
            self._out.averages.restart(step)
        if now.save or now.evaluate:
            # A run that resumes from here finds all lines up to here.
            self._out.flush()
        return scores

    def _draw_grids(self, step: int, ema_params: Params) -> None:
        drawn = drawing.draw_all(self._draw, ema_params, self._request)
        self._out.samples(step, images.picture(drawn))
        if self._step_picture:
            self._out.trajectory(step, self._step_picture(ema_params))

    def _average(self) -> None:
        """Fetch the metrics of the steps so far, check them, and add them to the averages."""
        fetched = jax.device_get(self._unchecked)
        self._unchecked.clear()
        health.check_metrics(fetched)
        for values in fetched.values():
            self._out.averages.add(values)

    def _generator(self, state: TrainState) -> GeneratorState:
        """Return the whole generator on this process's devices, without its optimiser."""
        return distributed.gathered(state.generator._replace(opt_state=()), self._devices)

    def _introduction(self, step: int, state: TrainState) -> str:
        info, devices = self._dataset.info, self._devices
        generator, discriminator = (
            num_parameters(network.params) / 1e6
            for network in (state.generator, state.discriminator)
        )
        return (
            f"{info.num_examples:,} images of {info.name}, {info.image_size} pixels; "
            f"{len(devices)} x {devices[0].device_kind}\n"
            f"generator {generator:.2f} M, discriminator {discriminator:.2f} M parameters\n"
            f"{'continuing after' if step else 'starting at'} step {step} of "
            f"{self._config.train.num_steps}; the first step compiles the program"
        )
