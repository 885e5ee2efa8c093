"""Choose round numbers that enclose the data of an axis, and write them in few characters."""

import bisect
import math
from collections.abc import Sequence

import numpy as np

# Size of a number below which it is drawn as zero.
SMALLEST = 1e-290
# Share of a number: two numbers that are closer than that are drawn as one.
SHARE = 1e-9
STEPS = (1, 2, 2.5, 5, 10)
# Gaps between the numbers of a logarithmic axis.
MOST_GAPS, FEWEST_GAPS = 7, 2


def round_ticks(low: float, high: float) -> list[float]:
    """Return about six multiples of 1, 2, 2.5 or 5 times a power of ten that enclose both numbers.

    Numbers are at most 1e300 in size. Those that are equal up to rounding lie in the middle.
    """
    from matplotlib.ticker import MaxNLocator

    size = max(abs(low), abs(high))
    if high - low <= max(SHARE * size, SMALLEST):
        half = size / 2 if size > SMALLEST else 0.5
        low, high = low - half, high + half
    # MaxNLocator also returns the numbers just outside, between which an axis can end.
    ticks = MaxNLocator(nbins=6, steps=STEPS).tick_values(low, high)
    # Twelve digits drop what rounding leaves, as in 0.30000000000000004.
    return [float(f"{tick:.12g}") for tick in ticks]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten that enclose both positive numbers, with 2 and 5 between a few.

    There are three or more, so that a reader sees the scale. matplotlib's LogLocator has
    none that enclose the data within a decade.
    """
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    fine = [float(f"{m}e{p}") for p in powers for m in (1, 2, 5)]
    # Every third of 1, 2, 5 is a power of ten: these alone are left where the data span decades.
    for ticks in (fine, fine[::3]):
        first = bisect.bisect_right(ticks, low) - 1
        last = max(bisect.bisect_left(ticks, high), first + 1)
        if last - first < FEWEST_GAPS:
            # The new number is on the side to which the data are nearer.
            below, above = low / ticks[first], ticks[last] / high
            first, last = (first - 1, last) if below < above else (first, last + 1)
        if last - first <= MOST_GAPS:
            break
    enclosing = ticks[first : last + 1]
    stride = math.ceil((last - first) / MOST_GAPS)
    # The last number is kept whatever the stride, since the axis must enclose the data.
    return enclosing if stride == 1 else [*enclosing[:-1:stride], enclosing[-1]]


def around(values: np.ndarray, log: bool, space: float) -> list[float]:
    """Return round numbers around all values, for an axis that keeps a part of the range free.

    log: for a logarithmic axis. space: the part, at each end. Raises ValueError for a value that
    has no place on the axis.
    """
    low, high = float(values.min()), float(values.max())
    if not log:
        free = space * (high - low)
        return round_ticks(low - free, high + free)
    if low <= 0:
        raise ValueError(f"{low:g} has no place on a logarithmic axis")
    # A single value has a range of no length, and needs room all the same.
    factor = max((high / low) ** space, 1 + space)
    return log_ticks(low / factor, high * factor)


def number(value: float, digits: int = 4) -> str:
    """Return a number in a few digits, thousands with k and millions with M: 0.6931, 2.5k, 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


def distinct(ticks: Sequence[float]) -> list[str]:
    """Return the texts of the numbers, in as many digits as it takes to tell them apart."""
    for digits in range(4, 12):
        texts = [number(tick, digits) for tick in ticks]
        if len(set(texts)) == len(ticks):
            return texts
    return [number(tick, 12) for tick in ticks]
