"""Report a run while it goes on: metrics and pictures in files, progress on the terminal."""

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ddgan_jax.files.atomic import write_errors
from ddgan_jax.files.paths import is_bucket
from ddgan_jax.files.run_folder import SPEED, RunFolder
from ddgan_jax.files.run_records import MetricsLine
from ddgan_jax.images import write_png
from ddgan_jax.progress import Display, Pace
from ddgan_jax.state import Metrics
from ddgan_jax.training.averages import Averages
from ddgan_jax.training.tags import tagged
from ddgan_jax.training.writers import Writers, open_writers

# Metrics that the terminal does not show: they change slowly or not at all.
_ONLY_IN_FILES = ("ema_distance", "g_learning_rate", "d_learning_rate")
# Time between two times that lines go into a bucket, if no checkpoint or score comes between.
SECONDS_BETWEEN_UPLOADS = 30.0


def warn(line: str) -> None:
    """Print a line to stderr, such as one about files of a run that could not be read."""
    print(line, file=sys.stderr)


class Reporter(AbstractContextManager):
    """Writes a run's metrics and pictures into its folder, and its progress to stdout.

    `Display` shows the progress, and `writers` tell the run to TensorBoard and to trackers.

    averages: the metrics since the last line; those before an interruption are among them.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        steps_done: int,
        num_steps: int,
        batch_size: int,
        active: bool = True,
        wanted: Sequence[str] = ("tensorboard",),
        config: Mapping[str, Any] | None = None,
        scores: Sequence[str] = (),
    ):
        """Open the files of a run that starts or resumes after `steps_done` steps.

        What the folder says of later steps is removed, since they are done again. num_steps: at
        which the run ends. batch_size: images per step. active: False on all processes but the main
        one; they write and print nothing. wanted: names of writers. config, scores: for them, see
        `Writer.config`. Raises UserError if files cannot be written, as the methods do.
        """
        self._folder = folder
        self._active = active
        self.averages = Averages(steps_done)
        # Lines that are not in the folder yet, and when the last ones got there.
        self._waiting: list[MetricsLine] = []
        self._written = -math.inf
        self._writers = Writers({}, warn)
        if active:
            with write_errors(folder.path):
                folder.path.mkdir(parents=True, exist_ok=True)
            if interval := folder.read_interval(steps_done, report=warn):
                self.averages = Averages.stored(interval)
            # A line that was written early, because the run was stopped, is told again in full.
            first_step = self.averages.since + 1
            with write_errors(folder.path):
                folder.drop_metrics_from(first_step, report=warn)
            self._writers = open_writers(wanted, folder, first_step, report=warn)
            if config:
                self._writers.config(config, scores)
        self._pace = Pace(num_steps, batch_size)
        self._display = Display(
            num_steps,
            steps_done,
            title="training",
            phase="opening the run folder",
            batch_size=batch_size,
            stream=sys.stdout,
            active=active,
        )

    def phase(self, text: str) -> None:
        """Show on a terminal what the run is doing, until the next step or phase."""
        self._display.phase(text)

    def step(self, step: int, metrics: Metrics | None = None) -> None:
        """Show that `step` was begun, and that it is done when its metrics are; call after each."""
        # JAX runs ahead of the devices. This question does not wait for them.
        first: Any = next(iter((metrics or {}).values()), None)
        is_done = None if first is None else first.is_ready
        self._display.step(step, is_done)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write and show the finite scalars `metrics` of `step`, which must be done by now.

        Adds the speed in images per second, of all that happened since the last call: the time for
        pictures and evaluations counts, too.
        """
        scalars = {name: float(value) for name, value in metrics.items()}
        # The time of day may be set back; this clock is not.
        now = time.monotonic()
        pace = self._pace.mark(step, now)
        if pace:
            scalars[SPEED], seconds_left = pace
        if self._active:
            self._waiting.append(MetricsLine(step, round(time.time(), 3), scalars))
            self._writers.scalars(step, tagged(scalars))
            # Files on a disk take each line as it comes, and a kill loses none. Objects in a bucket
            # are written anew for each line.
            if not is_bucket(self._folder.path) or now - self._written >= SECONDS_BETWEEN_UPLOADS:
                self.flush()
                self._written = now
        shown = {name: v for name, v in scalars.items() if name not in (*_ONLY_IN_FILES, SPEED)}
        self._display.numbers(step, shown, pace, _main_losses(scalars))

    def flush(self) -> None:
        """Write what waits; to be called before a checkpoint, from which a run may resume."""
        if not self._active:
            return
        lines, self._waiting = self._waiting, []
        if lines:
            with write_errors(self._folder.path):
                self._folder.append_metrics(*lines)
        self._writers.flush()

    def keep_averages(self, step: int) -> None:
        """Keep the averages for a process that goes on after `step`."""
        if self._active:
            self._folder.write_interval(self.averages.interval(step))

    def samples(self, step: int, grid: UInt8[np.ndarray, "h w c"]) -> None:
        """Write a grid of samples into the run folder, and tell the writers."""
        self._picture(step, self._folder.grid(step), "samples", grid)

    def trajectory(self, step: int, grid: UInt8[np.ndarray, "h w c"]) -> None:
        """Write a picture of denoising steps likewise."""
        self._picture(step, self._folder.trajectory(step), "trajectory", grid)

    def _picture(self, step: int, path: os.PathLike, name: str, grid: np.ndarray) -> None:
        if not self._active:
            return
        # The file comes first, since the writers only repeat it.
        write_png(path, grid)
        self._writers.image(step, name, grid)

    def message(self, text: str) -> None:
        """Print a line; a bar stays below it."""
        self._display.message(text)

    def close(self) -> None:
        """End the bar and close the files; leaving the context does the same."""
        self._end(failed=False)

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self._end(failed=kind is not None)

    def _end(self, failed: bool) -> None:
        self._display.close()
        try:
            self.flush()
        finally:
            self._writers.close(failed)


def _main_losses(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the adversarial loss of each network, as far as they are among the metrics."""
    losses = {"d_loss": ("d_loss_real", "d_loss_fake"), "g_loss": ("g_loss",)}
    return {
        name: sum(metrics[part] for part in parts)
        for name, parts in losses.items()
        if all(part in metrics for part in parts)
    }
