"""Speed and time left of long work, and times as people read them."""


class Pace:
    """Speed and time left, from the moments at which steps are known to be done.

    The first moment only starts the clock, so that compiling does not count.
    """

    def __init__(self, num_steps: int, batch_size: int):
        """num_steps: of the whole run. batch_size: images per step."""
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def mark(self, step: int, now: float) -> tuple[float, float] | None:
        """(images per second since the last mark, seconds left at the average since the first).

        step: done by now. now: seconds on any clock that only goes forward. None at the first mark.
        """
        self._first = self._first or (step, now)
        last, self._last = self._last, (step, now)
        if last is None or step == last[0]:
            return None
        images_per_second = (step - last[0]) * self._batch_size / (now - last[1])
        seconds_per_step = (now - self._first[1]) / (step - self._first[0])
        return images_per_second, (self._num_steps - step) * seconds_per_step


def duration(seconds: float) -> str:
    """Return a time in the two units that matter: "35 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
