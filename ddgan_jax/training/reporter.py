"""Report a run while it goes on: metrics and pictures in files, progress on the terminal."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from ddgan_jax.files.atomic import write_errors
from ddgan_jax.files.paths import is_bucket
from ddgan_jax.files.progress import Pace, duration
from ddgan_jax.files.run_folder import SPEED, RunFolder
from ddgan_jax.images import write_png
from ddgan_jax.training.event_files import EventFile

# Metrics that the terminal does not show: they change slowly or not at all.
_ONLY_IN_FILES = ("ema_distance", "g_learning_rate", "d_learning_rate")


def warn(line: str) -> None:
    """Print a line to stderr, such as one about files of a run that could not be read."""
    print(line, file=sys.stderr)


class Reporter(AbstractContextManager):
    """Writes a run's metrics and pictures into its folder, and its progress to stdout.

    If stdout is a terminal, progress is a bar that stays on one line; otherwise each call of
    `metrics` prints a line.
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
        # In a log file a bar would be a long line of control characters.
        self._bar = tqdm(
            total=num_steps,
            initial=steps_done,
            file=sys.stdout,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}{postfix}",
            disable=not (active and sys.stdout.isatty()),
        )

    def step(self, step: int) -> None:
        """Move the bar to `step`; to be called after each."""
        self._bar.update(step - self._bar.n)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write and show the finite scalars `metrics` of `step`, which must be done by now.

        Adds the speed in images per second, of all that happened since the last call: the time for
        pictures and evaluations counts, too.
        """
        scalars = {name: float(value) for name, value in metrics.items()}
        shown = [f"{name} {v:.3g}" for name, v in scalars.items() if name not in _ONLY_IN_FILES]
        # The time of day may be set back; this clock is not.
        pace = self._pace.mark(step, time.monotonic())
        if pace:
            scalars[SPEED], seconds_left = pace
            speed = f"{pace[0]:,.0f}" if pace[0] >= 100 else f"{pace[0]:.3g}"
            shown += [f"{speed} images/s", f"{duration(seconds_left)} left"]
        if self._active:
            with write_errors(self._folder.path):
                self._folder.append_metrics(step, scalars)
                if self._events:
                    self._events.write_scalars(step, scalars)
                    # Lines are minutes apart, so a flush costs nothing, and a kill loses none.
                    self._events.flush()
        if self._bar.disable:
            self.message("  ".join([f"step {step}/{self._bar.total}", *shown]))
        else:
            self._bar.set_postfix_str("  ".join(shown))

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
        if self._active:
            tqdm.write(text, file=sys.stdout)
            # A log file shows each line at once to those who follow it.
            sys.stdout.flush()

    def close(self, *exception: object) -> None:
        """End the bar and close the files; leaving the context does the same."""
        self._bar.close()
        if self._events:
            with write_errors(self._folder.path):
                self._events.close()

    __exit__ = close
