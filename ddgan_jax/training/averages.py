"""Average the metrics of the steps between two lines of a log, exactly.

Sums are exact fractions. So an average does not depend on whether its steps were added up by one
process, or by two because the run was stopped in between: it is the same number, bit by bit.
"""

from collections.abc import Mapping
from fractions import Fraction

from ddgan_jax.files.run_folder import Interval


class Averages:
    """The metrics of the steps after the last line.

    since: the step of that line, or the one at which the run began.
    """

    def __init__(self, since: int):
        """Begin after the step `since`."""
        self.since = since
        self._sums: dict[str, tuple[Fraction, int]] = {}

    @classmethod
    def stored(cls, interval: Interval) -> "Averages":
        """Go on where an earlier process was stopped; see `interval`."""
        averages = cls(interval.after)
        averages._sums = {name: (Fraction(x), count) for name, (x, count) in interval.sums.items()}
        return averages

    def interval(self, step: int) -> Interval:
        """Return the sums for a process that goes on after `step`."""
        sums = {name: (str(total), count) for name, (total, count) in self._sums.items()}
        return Interval(self.since, step, sums)

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add the finite metrics of one step."""
        for name, value in metrics.items():
            total, count = self._sums.get(name, (Fraction(0), 0))
            self._sums[name] = total + Fraction(float(value)), count + 1

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the steps that had it, rounded once."""
        return {name: float(total / count) for name, (total, count) in self._sums.items()}

    def restart(self, step: int) -> None:
        """Forget all steps; a line has told them up to `step`."""
        self.since, self._sums = step, {}
