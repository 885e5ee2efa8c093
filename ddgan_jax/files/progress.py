"""Compute speed and remaining time of long work, and durations as people read them."""


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
