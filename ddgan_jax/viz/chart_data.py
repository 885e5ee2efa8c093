"""Numbers for charts: round ones for axes, short ones for people, fewer and smoother for lines."""

import math
from collections.abc import Sequence

SMALLEST = 1e-290  # what is less is zero
LARGEST_LINE = 400  # points; a longer line is drawn through the extremes of its parts

Point = tuple[float, float]


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return multiples of 1, 2, 2.5 or 5 times a power of ten that enclose both, about `count`.

    Numbers are at most 1e300 in size. Those that are equal up to rounding lie in the middle.
    """
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, SMALLEST):
        half = size / 2 if size > SMALLEST else 0.5
        low, high = low - half, high + half
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    # What lies on a tick needs none beyond it, whatever its last bit.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose both positive numbers, with 2 and 5 between where they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
    fine = [float(f"{m}e{p}") for p in powers for m in (1, 2, 5)]
    for ticks in (fine, fine[::3]):
        first = max(i for i, tick in enumerate(ticks) if tick <= low)
        last = min(i for i, tick in enumerate(ticks) if tick >= high and i > first)
        if last - first < 7:
            break
    enclosing = ticks[first : last + 1]
    stride = math.ceil((len(enclosing) - 1) / 7)
    return enclosing if stride == 1 else [*enclosing[:-1:stride], enclosing[-1]]


def number(value: float) -> str:
    """In four digits, thousands and millions as k and M: 0.6931, 2.5k, 300k, 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def thinned(points: Sequence[Point], limit: int = LARGEST_LINE) -> Sequence[Point]:
    """At most `limit` of the points, in order: of each of equal parts the lowest and highest."""
    if len(points) <= limit:
        return points
    parts = limit // 2
    edges = [i * len(points) // parts for i in range(parts + 1)]
    kept = set()
    for first, last in zip(edges, edges[1:], strict=False):
        kept |= {extreme(range(first, last), key=lambda i: points[i][1]) for extreme in (min, max)}
    return [points[i] for i in sorted(kept)]


def running_mean(points: Sequence[Point], reach: int) -> list[Point]:
    """Each point with the mean of y over itself and up to `reach` neighbours on either side."""
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    means = []
    for i, (x, _) in enumerate(points):
        first, last = max(0, i - reach), min(len(points), i + reach + 1)
        means.append((x, (sums[last] - sums[first]) / (last - first)))
    return means
