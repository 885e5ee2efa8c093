"""Show on the terminal how far long work is: its phase, its steps, its speed and the time left."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

import numpy as np
from tqdm import tqdm

# Time between lines where stderr is no terminal, as in the log of a cluster.
SECONDS_BETWEEN_LINES = 10.0


class Pace:
    """Computes speed and remaining time from the times at which steps are known to be done.

    The first time only starts the clock, so that compiling does not count.
    """

    def __init__(self, num_steps: int, batch_size: int):
        """Take the number of steps of the whole run, and the number of images in each step."""
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def mark(self, step: int, now: float) -> tuple[float, float] | None:
        """Return the images per second since the last mark, and the seconds that are left.

        step: steps done by now. now: seconds on any clock that only goes forward. The seconds left
        follow from the average speed since the first mark, for which this returns None.
        """
        self._first = self._first or (step, now)
        last, self._last = self._last, (step, now)
        # Without a step between two marks there is no speed.
        if last is None or step == last[0]:
            return None
        images_per_second = (step - last[0]) * self._batch_size / (now - last[1])
        # Pictures and evaluations come at intervals: the average over all steps has its share of
        # them.
        seconds_per_step = (now - self._first[1]) / (step - self._first[0])
        return images_per_second, (self._num_steps - step) * seconds_per_step


def duration(seconds: float) -> str:
    """Return a duration in its largest units: "35 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


class Display:
    """Shows the progress of one piece of work: a line that moves on a terminal, lines elsewhere."""

    def __init__(
        self,
        total: int,
        done: int = 0,
        *,
        batch_size: int = 1,
        unit: str = "step",
        stream: TextIO | None = None,
        active: bool = True,
    ):
        """Begin after `done` of `total` steps.

        batch_size: images of a step. unit: what a step is called. stream: where to show them, by
        default stdout. active: False to show nothing.
        """
        self._total, self._unit, self._active = total, unit, active
        self._batch_size = batch_size
        self._stream = stream or sys.stdout
        # In a log file a bar would be a long line of control characters.
        self._bar = tqdm(
            total=total,
            initial=done,
            file=self._stream,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}{postfix}",
            disable=not (active and self._stream.isatty()),
        )

    def phase(self, text: str) -> None:
        """Say what the work is doing, such as "reading data", until a step or the next phase."""

    def step(self, step: int) -> None:
        """Move to `step`; to be called after each."""
        self._bar.update(step - self._bar.n)

    def numbers(
        self, step: int, numbers: Mapping[str, float], pace: tuple[float, float] | None
    ) -> None:
        """Show numbers of `step`, which is done by now. pace: from `Pace.mark`."""
        shown = [f"{name} {value:.3g}" for name, value in numbers.items()]
        if pace:
            speed = f"{pace[0]:,.0f}" if pace[0] >= 100 else f"{pace[0]:.3g}"
            shown += [f"{speed} images/s", f"{duration(pace[1])} left"]
        if self._bar.disable:
            self.message("  ".join([f"{self._unit} {step}/{self._total}", *shown]))
        else:
            self._bar.set_postfix_str("  ".join(shown))

    def message(self, text: str) -> None:
        """Print a line that stays, above the one that moves."""
        if self._active:
            tqdm.write(text, file=self._stream)
            # A log file shows each line at once to those who follow it.
            self._stream.flush()

    def close(self) -> None:
        """End the line."""
        self._bar.close()


def with_progress(chunks: Iterable[np.ndarray], done: int, total: int) -> Iterator[np.ndarray]:
    """Yield the same chunks, and show how many images the caller has taken.

    done: images that were there before. The first chunk only starts the clock, since its program
    is compiled meanwhile.
    """
    if done:
        print(f"{done:,} of {total:,} images are there", file=sys.stderr)
    pace, last_line = Pace(total, 1), time.monotonic()
    terminal = sys.stderr.isatty()
    # A disabled bar does nothing, so that the loop below is the same without a terminal.
    bar = tqdm(
        total=total,
        initial=done,
        file=sys.stderr,
        dynamic_ncols=True,
        bar_format="{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} images{postfix}",
        disable=not terminal,
    )
    with contextlib.closing(bar):
        for chunk in chunks:
            yield chunk
            # The caller asks for the next chunk when the last one is written, so that this counts
            # written images.
            done += len(chunk)
            bar.update(len(chunk))
            speed = pace.mark(done, time.monotonic())
            # The first chunk has no speed, see above.
            if speed is None:
                continue
            text = f"{speed[0]:,.3g} images/s, {duration(speed[1])} left"
            bar.set_postfix_str(text)
            due = time.monotonic() - last_line >= SECONDS_BETWEEN_LINES
            if due and not terminal:
                print(f"{done:,} of {total:,} images  {text}", file=sys.stderr, flush=True)
                last_line = time.monotonic()
