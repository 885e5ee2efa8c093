"""Compute speed and remaining time of long work, and write durations as people read them."""

import collections


class Pace:
    """Computes speed and remaining time from the times at which steps are known to be done.

    The first time only starts the clock, so that compiling does not count.
    """

    def __init__(self, num_steps: int, batch_size: int, window: float = 0.0):
        """Take the number of steps of the whole run, and the number of images in each step.

        window: Seconds over which the speed is taken, at the least from one mark to the next.
        """
        self._num_steps, self._batch_size, self._window = num_steps, batch_size, window
        self._first: tuple[int, float] | None = None
        self._recent: collections.deque[tuple[int, float]] = collections.deque()

    def mark(self, step: int, now: float) -> tuple[float, float] | None:
        """Return the images per second since the last mark, and the seconds that are left.

        step: steps done by now. now: seconds on any clock that only goes forward. The seconds left
        follow from the average speed since the first mark, for which this returns None.
        """
        self._first = self._first or (step, now)
        recent = self._recent
        recent.append((step, now))
        while len(recent) > 2 and now - recent[1][1] >= self._window:
            recent.popleft()
        # Without steps or time between two marks there is no speed.
        if step == recent[0][0] or now == recent[0][1]:
            return None
        images_per_second = (step - recent[0][0]) * self._batch_size / (now - recent[0][1])
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


def elapsed(seconds: float) -> str:
    """Return the time that something has taken so far, which moves every second: "2 min 05 s"."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
