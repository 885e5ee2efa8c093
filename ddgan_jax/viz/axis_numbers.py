"""Numbers on axes: round ones that enclose the data, and short texts for them."""

import bisect
import math
from collections.abc import Sequence

SMALLEST = 1e-290  # the size of a number below which it is drawn as zero
SHARE = 1e-9  # of a number: the distance below which two numbers are drawn as one
STEPS = (1, 2, 2.5, 5, 10)
MOST_GAPS = 7  # between the numbers of a logarithmic axis


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
    return [float(f"{tick:.12g}") for tick in ticks]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten that enclose both positive numbers, with 2 and 5 between a few.

    matplotlib's LogLocator has none that enclose the data within a decade.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
    fine = [float(f"{m}e{p}") for p in powers for m in (1, 2, 5)]
    for ticks in (fine, fine[::3]):
        first = bisect.bisect_right(ticks, low) - 1
        last = max(bisect.bisect_left(ticks, high), first + 1)
        if last - first <= MOST_GAPS:
            break
    enclosing = ticks[first : last + 1]
    stride = math.ceil((last - first) / MOST_GAPS)
    return enclosing if stride == 1 else [*enclosing[:-1:stride], enclosing[-1]]


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
