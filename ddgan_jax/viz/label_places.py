"""Find places for the labels of dots, where they cover neither dots nor each other.

All coordinates are pixels; the first grows to the right, the second upwards.
"""

from collections.abc import Iterator, Sequence

from matplotlib.transforms import Bbox

# Half the height of a line of text.
HALF_LINE = 8
# From the middle of a dot to the edge, and to the middle, of a label.
BESIDE, ABOVE = 9, 7
# Radius of the area that labels keep free.
DOT = 6
# Further distances from the dot, the nearest tried first.
AWAY = (0, 8, 22, 38, 56)
# Right, left, below, above, and the corners.
SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))

Point = tuple[float, float]


def place_labels(dots: Sequence[Point], widths: Sequence[float], frame: Bbox) -> list[Bbox]:
    """Return the box of each dot's text, of the given width: the free one nearest to its dot.

    It lies inside the frame where that has room. If everything is taken, it lies beside its dot.
    """
    # Labels keep away from all dots, also from those that come later.
    taken = [Bbox.from_extents(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    for dot, width in zip(dots, widths, strict=True):
        boxes = list(_candidates(dot, width))
        inside = [b for b in boxes if frame.contains(*b.min) and frame.contains(*b.max)] or boxes
        free = [b for b in inside if not b.count_overlaps(taken)]
        taken.append((free or inside)[0])
    return taken[len(dots) :]


def _candidates(dot: Point, width: float) -> Iterator[Bbox]:
    """Yield the boxes of a label of that width around a dot, those beside it first."""
    x, y = dot
    for away in AWAY:
        lefts = {1: x + BESIDE + away, -1: x - BESIDE - away - width, 0: x - width / 2}
        middles = {1: y + ABOVE + away, -1: y - ABOVE - away, 0: y}
        # Right at the dot only the places to its right and left are tried: above and below the text
        # would touch it.
        for side, height in SIDES if away else SIDES[:2]:
            yield Bbox.from_bounds(lefts[side], middles[height] - HALF_LINE, width, 2 * HALF_LINE)
