"""Write mean and standard deviation over seeds, and name the numbers of a result."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NOT_MEASURED = "not measured"
# The form of a number without bounds: three digits that count, at most four behind the point.
FREE = "free"


class Measure(NamedTuple):
    """A number of a result. form: Python's format, or FREE."""

    name: str
    title: str
    form: str = FREE


MEASURES = (
    Measure("modes", "modes", ",.1f"),
    Measure("kl", "KL"),
    Measure("class_right", "right class", ".1%"),
    Measure("frechet_classifier", "Fréchet, classifier"),
    Measure("frechet_pixels", "Fréchet, pixels"),
    Measure("precision", "precision", ".3f"),
    Measure("recall", "recall", ".3f"),
    Measure("seconds_per_100", "s per 100"),
)
FORMS = {measure.name: measure.form for measure in MEASURES}


def over_seeds(values: Iterable[float | None], form: str = FREE) -> str:
    """Return "mean ± standard deviation" of the values that there are, "-" without any.

    The deviation divides by n - 1; a single value has none.
    """
    kept = [value for value in values if value is not None]
    if not kept:
        return "-"
    mean = statistics.fmean(kept)
    if form == FREE:
        form = f",.{_digits(mean)}f"
    if len(kept) == 1:
        return format(mean, form)
    return f"{format(mean, form)} ± {format(statistics.stdev(kept), form)}"


def _digits(mean: float) -> int:
    return min(max(2 - math.floor(math.log10(abs(mean))), 0), 4) if mean else 2


def count_of(done: int, wanted: int, diverged: int) -> str:
    """Return how many seeds there are, and how many of them have diverged."""
    if not done:
        return NOT_MEASURED
    count = f"{done}" if done >= wanted else f"{done} of {wanted}"
    return f"{count}, {diverged} diverged" if diverged else count


def listed(names: Sequence[str]) -> str:
    """Return "a, b and c", each name once."""
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} and {last}" if first else last


def hours(seconds: float) -> str:
    """Return a processor time in words."""
    return f"{seconds / 3600:.1f} CPU hours"
