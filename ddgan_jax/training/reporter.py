"""What a run tells: its config, its metrics in files, its progress on the terminal."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
from tqdm import tqdm

from ddgan_jax.files.atomic import write_errors
from ddgan_jax.files.paths import is_bucket
from ddgan_jax.files.progress import Pace, duration
from ddgan_jax.files.run_folder import SPEED, RunFolder
from ddgan_jax.images import write_png
from ddgan_jax.training.event_files import SummaryWriter, metric_writers

# Metrics that only the files tell: they change slowly or not at all.
_QUIET = ("ema_distance", "g_learning_rate", "d_learning_rate")


def warn(line: str) -> None:
    """Print a line to stderr, such as one about files of a run that could not be read."""
    print(line, file=sys.stderr)


class JsonLines:
    """The lines of metrics in a run folder.

    Has the methods of clu's metric writers that this program calls.
    """

    def __init__(self, folder: RunFolder, first_step: int):
        """Drop what the file says of `first_step` and later, which is about to be done again."""
        self._folder = folder
        folder.drop_metrics_from(first_step, report=warn)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append a line."""
        self._folder.append_metrics(step, scalars)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Nothing: images have files of their own."""

    def flush(self) -> None:
        """Nothing: each line is written at once."""

    def close(self) -> None:
        """Nothing: no file is open between lines."""


# -------------------------------------------------------------------- progress on the terminal


class Reporter(AbstractContextManager):
    """A run's metrics and grids into its folder, and its progress to stdout.

    A bar that stays on one line if stdout is a terminal, a line per call of `metrics` otherwise.
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
        """steps_done: where the run begins or goes on; what the folder tells of later steps goes.

        num_steps: at which the run ends. batch_size: images per step. active: False on all
        processes but one, which write and print nothing. Raises UserError if files cannot be
        written, as the methods do.
        """
        self._folder = folder
        self._active = active
        writers = []
        if active:
            with write_errors(folder.path):
                folder.path.mkdir(parents=True, exist_ok=True)
                writers = [JsonLines(folder, steps_done + 1)]
                if not is_bucket(folder.path):  # event files grow, and objects do not
                    writers.append(SummaryWriter(os.fspath(folder.path), steps_done + 1))
        self._writer = metric_writers.MultiWriter(writers)
        self._pace = Pace(num_steps, batch_size)
        self._bar = tqdm(
            total=num_steps,
            initial=steps_done,
            file=sys.stdout,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}{postfix}",
            disable=not (active and sys.stdout.isatty()),
        )

    def step(self, step: int) -> None:
        """Moves the bar to `step`; to be called after each."""
        self._bar.update(step - self._bar.n)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes and shows the finite scalars `metrics` of `step`, which must be done by now.

        Adds images_per_second: all that happened since the last call counts, grids included.
        """
        scalars = {name: float(value) for name, value in metrics.items()}
        shown = [f"{name} {value:.3g}" for name, value in scalars.items() if name not in _QUIET]
        pace = self._pace.mark(step, time.monotonic())
        if pace:
            scalars[SPEED], seconds_left = pace
            speed = f"{pace[0]:,.0f}" if pace[0] >= 100 else f"{pace[0]:.3g}"
            shown += [f"{speed} images/s", f"{duration(seconds_left)} left"]
        with write_errors(self._folder.path):
            self._writer.write_scalars(step, scalars)
            self._writer.flush()
        if self._bar.disable:
            self.message("  ".join([f"step {step}/{self._bar.total}", *shown]))
        else:
            self._bar.set_postfix_str("  ".join(shown))

    def samples(self, step: int, grid: np.ndarray) -> None:
        """Write a uint8 grid (H, W, C) of samples into the run folder and the event files."""
        self._picture(step, self._folder.grid(step), "samples", grid)

    def trajectory(self, step: int, grid: np.ndarray) -> None:
        """Write a picture of denoising steps likewise."""
        self._picture(step, self._folder.trajectory(step), "trajectory", grid)

    def _picture(self, step: int, path: os.PathLike, tag: str, grid: np.ndarray) -> None:
        if self._active:
            write_png(path, grid)
            with write_errors(self._folder.path):
                self._writer.write_images(step, {tag: grid})

    def message(self, text: str) -> None:
        """Prints a line; a bar stays below it."""
        if self._active:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self, *exception: object) -> None:
        """Ends the bar and closes the files; leaving the context does the same."""
        self._bar.close()
        with write_errors(self._folder.path):
            self._writer.close()

    __exit__ = close
