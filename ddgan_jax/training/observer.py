"""Observe a run: its metrics, its health, its scores and its grids, when they are due.

The loop hands over every step's metrics. They stay on the devices until a line is due, because
fetching them waits for the step. Everything that a run needs in an hour is compiled and tried
before its first step.
"""

from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ddgan_jax import build, distributed, images
from ddgan_jax.data.datasets import Dataset
from ddgan_jax.inference import drawing
from ddgan_jax.state import GeneratorState, Metrics, TrainState, num_parameters
from ddgan_jax.training import health, hooks
from ddgan_jax.training.reporter import Reporter


class Due(NamedTuple):
    """The things that follow a step."""

    save: bool
    evaluate: bool
    log: bool
    sample: bool


def due(config: ConfigDict, step: int, *, stopping: bool) -> Due:
    """Return the things that follow `step`. stopping: it is the last one for now.

    The last step of a run is followed by everything. What is saved or evaluated is also logged, so
    that every checkpoint and every score has its line of metrics.
    """
    last = step == config.train.num_steps
    save = last or stopping or step % config.checkpoint.save_every_steps == 0
    evaluate = hooks.is_due(step, config.eval.every_steps, config.train.num_steps)
    return Due(
        save=save,
        evaluate=evaluate,
        log=save or evaluate or step % config.log.every_steps == 0,
        sample=last or step % config.log.samples_every_steps == 0,
    )


class Observer:
    """Observes a run on all processes; the main process alone scores, draws and writes."""

    def __init__(
        self, config: ConfigDict, dataset: Dataset, devices: distributed.Devices, out: Reporter
    ):
        """Take the data set for scores, the devices of all processes, and the reporter `out`."""
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
        self._latest: Metrics = {}
        # Metrics of the steps since the last line. Each is checked, although few are shown.
        self._unchecked: dict[int, Metrics] = {}

    def start(self, step: int, state: TrainState) -> None:
        """Introduce the run, then compile and try what later steps need.

        step: where the run begins or goes on. Raises UserError for a state that is not healthy, and
        if its scores cannot be computed.
        """
        self._out.message(self._introduction(step, state))
        ema_params = self._generator(state).ema_params
        health.check_state(step, state, ema_params, self._draw, self._request)
        if not distributed.is_main_process():
            return
        if self._step_picture:
            # The first picture compiles the program for all others.
            self._step_picture(ema_params)
        # A run that has ended already needs no scores.
        if self._config.eval.every_steps and step < self._config.train.num_steps:
            self._scores = hooks.make_scores(
                self._config, self._dataset, self._draw, self._out.message
            )

    def after(self, step: int, state: TrainState, metrics: Metrics, due: Due) -> dict[str, float]:
        """Do what is due after `step`, and return its scores, {} if there are none.

        metrics: of this step, on the devices. Raises UserError if they, those of the steps before,
        or a state that is to be kept are not finite.
        """
        # A step without R1 has no penalty of its own: a line tells the latest one.
        self._latest = self._latest | metrics
        self._unchecked[step] = metrics
        scores: dict[str, float] = {}
        # Nothing is fetched from the devices in most steps.
        if not (due.log or due.sample):
            return scores
        # Gathering shards is work of all processes, whoever needs the result.
        generator = self._generator(state)
        if due.log:
            health.check_metrics(jax.device_get(self._unchecked))
            self._unchecked.clear()
            if due.save or due.evaluate:
                health.check_state(step, state, generator.ema_params, self._draw, self._request)
            if due.evaluate and self._scores:
                scores = self._scores(generator.ema_params)
            found = hooks.state_metrics(step, generator, self._learning_rates)
            line = self._latest | found | scores
            self._out.metrics(step, {name: float(value) for name, value in line.items()})
        if due.sample and distributed.is_main_process():
            drawn = drawing.draw_all(self._draw, generator.ema_params, self._request)
            self._out.samples(step, images.picture(drawn))
            if self._step_picture:
                self._out.trajectory(step, self._step_picture(generator.ema_params))
        return scores

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
            f"generator {generator:.2f} M, discriminator {discriminator:.2f} M parameters; "
            f"{len(devices)} x {devices[0].device_kind}\n"
            f"{'continuing after' if step else 'starting at'} step {step} of "
            f"{self._config.train.num_steps}; the first step compiles the program"
        )
