"""Report a run while it goes on: metrics and pictures in files, progress on the terminal."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
from jaxtyping import UInt8

from ddgan_jax.files.atomic import write_errors
from ddgan_jax.files.paths import is_bucket
from ddgan_jax.files.run_folder import SPEED, RunFolder
from ddgan_jax.images import write_png
from ddgan_jax.progress import Display, Pace
from ddgan_jax.training.event_files import EventFile

# Metrics that the terminal does not show: they change slowly or not at all.
_ONLY_IN_FILES = ("ema_distance", "g_learning_rate", "d_learning_rate")


def warn(line: str) -> None:
    """Print a line to stderr, such as one about files of a run that could not be read."""
    print(line, file=sys.stderr)


class Reporter(AbstractContextManager):
    """Writes a run's metrics and pictures into its folder, and its progress to stdout.

    `Display` shows the progress.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        steps_done: int,
        num_steps: int,
        batch_size: int,
        active: bool = True,
    ):
        """Open the files of a run that starts or resumes after `steps_done` steps.

        What the folder says of later steps is removed, since they are done again. num_steps: at
        which the run ends. batch_size: images per step. active: False on all processes but the main
        one; they write and print nothing. Raises UserError if files cannot be written, as the
        methods do.
        """
        self._folder = folder
        self._active = active
        self._events: EventFile | None = None
        if active:
            with write_errors(folder.path):
                folder.path.mkdir(parents=True, exist_ok=True)
                folder.drop_metrics_from(steps_done + 1, report=warn)
                # Event files grow, which objects in a bucket cannot.
                if not is_bucket(folder.path):
                    self._events = EventFile(folder.path, steps_done + 1)
        self._pace = Pace(num_steps, batch_size)
        self._display = Display(num_steps, steps_done, batch_size=batch_size, active=active)

    def phase(self, text: str) -> None:
        """Show on a terminal what the run is doing, until the next step or phase."""
        self._display.phase(text)

    def step(self, step: int) -> None:
        """Move the bar to `step`; to be called after each."""
        self._display.step(step)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write and show the finite scalars `metrics` of `step`, which must be done by now.

        Adds the speed in images per second, of all that happened since the last call: the time for
        pictures and evaluations counts, too.
        """
        scalars = {name: float(value) for name, value in metrics.items()}
        # The time of day may be set back; this clock is not.
        pace = self._pace.mark(step, time.monotonic())
        if pace:
            scalars[SPEED], seconds_left = pace
        if self._active:
            with write_errors(self._folder.path):
                self._folder.append_metrics(step, scalars)
                if self._events:
                    self._events.write_scalars(step, scalars)
                    # Lines are minutes apart, so a flush costs nothing, and a kill loses none.
                    self._events.flush()
        shown = {name: v for name, v in scalars.items() if name not in (*_ONLY_IN_FILES, SPEED)}
        self._display.numbers(step, shown, pace)

    def samples(self, step: int, grid: UInt8[np.ndarray, "h w c"]) -> None:
        """Write a grid of samples into the run folder and the event file."""
        self._picture(step, self._folder.grid(step), "samples", grid)

    def trajectory(self, step: int, grid: UInt8[np.ndarray, "h w c"]) -> None:
        """Write a picture of denoising steps likewise."""
        self._picture(step, self._folder.trajectory(step), "trajectory", grid)

    def _picture(self, step: int, path: os.PathLike, name: str, grid: np.ndarray) -> None:
        if not self._active:
            return
        # The file comes first, since the event file only repeats it.
        write_png(path, grid)
        if self._events:
            with write_errors(self._folder.path):
                self._events.write_image(step, name, grid)

    def message(self, text: str) -> None:
        """Print a line; a bar stays below it."""
        self._display.message(text)

    def close(self, *exception: object) -> None:
        """End the bar and close the files; leaving the context does the same."""
        self._display.close()
        if self._events:
            with write_errors(self._folder.path):
                self._events.close()

    __exit__ = close
