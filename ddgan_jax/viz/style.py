"""Set the colours and the fonts of charts and figures, in whatever state matplotlib is."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddgan_jax.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, RULE, PAPER = "#1d2433", "#667085", "#e4e7ec", "#ffffff"
SERIES = ("#2563b8", "#c2570c", "#2d7d46", "#7c4db8", "#b8325e", "#0e7490")

# The same figure gives the same bytes on every machine, whatever its matplotlibrc says.
_SETTINGS = {
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 12,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "path.simplify": True,
    "path.simplify_threshold": 0.5,  # pixels: a line of 100,000 points becomes one of hundreds
    "pdf.fonttype": 42,  # TrueType, since publishers refuse matplotlib's Type 3
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names come from anywhere, and $ is a character like others
}


@contextmanager
def settings(title: str) -> Iterator[None]:
    """Draw with these settings, and with names of shapes that no figure of another title has."""
    from matplotlib import style

    own = _SETTINGS | {"svg.hashsalt": f"chart {clean(title)}"}
    with style.context(["default", own]), warnings.catch_warnings():
        # The viewer's fonts have the characters that matplotlib's own lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def clean(text: str) -> str:
    """Return the text in one line, without the characters that XML does not know."""
    return printable(" ".join(text.split()))


def draw_legend(
    figure: "Figure",
    dots: Sequence[Any],
    names: Sequence[str],
    columns: int,
    place: tuple[float, float],
) -> None:
    """Draw a legend without a frame: a dot, which is a matplotlib line, before each name.

    place: the upper left corner, in fractions of the figure from its lower left.
    """
    figure.legend(
        dots,
        [clean(name) for name in names],
        loc="upper left",
        bbox_to_anchor=place,
        ncols=columns,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=0.8,
        handletextpad=0.5,
        columnspacing=1.2,
    )
