"""Write a figure of matplotlib as a PNG, SVG or PDF file that says which program wrote it."""

import io
import os
from typing import TYPE_CHECKING

from ddgan_jax.files.ours import PROGRAM
from ddgan_jax.viz.style import PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS = (".png", ".svg", ".pdf")


def form_of(path: str | os.PathLike) -> str:
    """Return the ending of a path, one of FORMS."""
    return os.path.splitext(os.fspath(path))[1].lower()


def encoded(figure: "Figure", form: str, title: str, *, dpi: float) -> bytes:
    """Return a figure on white paper as a file; the same figure gives the same bytes.

    form: one of FORMS. dpi: dots per inch of a PNG file.
    """
    content = io.BytesIO()
    # None keeps out the date, and the version of matplotlib.
    about: dict[str, dict[str, str | None]] = {
        ".png": {"Software": PROGRAM, "Title": title},
        ".svg": {"Creator": PROGRAM, "Title": title, "Date": None, "Format": None, "Type": None},
        ".pdf": {"Creator": PROGRAM, "Producer": PROGRAM, "Title": title, "CreationDate": None},
    }
    figure.savefig(content, format=form[1:], metadata=about[form], dpi=dpi, facecolor=PAPER)
    return content.getvalue()
