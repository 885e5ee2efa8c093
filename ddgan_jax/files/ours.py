"""Recognise files that this program wrote: a command may replace these, and no others.

Each format has a place for the name of the program that wrote a file; arrays are recognised by
names that only files of ours hold.
"""

import os

from etils import epath

PROGRAM = "ddgan-jax"
# Bytes at either end of a file, in which a sign stands.
_REACH = 2**16
_SIGNS = (
    # PNG: the text "Software", behind the length of the chunk.
    f"tEXtSoftware\0{PROGRAM}".encode(),
    # HTML; the footer is that of reports of earlier versions.
    f'<meta name="generator" content="{PROGRAM}'.encode(),
    f"<footer>Written by {PROGRAM}".encode(),
    # SVG: the creator in matplotlib's metadata, and the root of a chart.
    f"<dc:title>{PROGRAM}".encode(),
    b'<svg class="chart" viewBox=',
    # PDF.
    f"/Creator ({PROGRAM}".encode(),
    # The directory at the end of an .npz: statistics of features, and Inception weights.
    b"provenance.npy",
    b"source_sha256.npy",
)


def may_be_replaced(path: str | os.PathLike) -> bool:
    """Return whether a file is one that this program wrote, or is empty.

    Raises OSError if it cannot be read.
    """
    with epath.Path(path).open("rb") as file:
        ends = file.read(_REACH)
        size = file.seek(0, os.SEEK_END)
        # The two ends of a small file overlap.
        file.seek(max(len(ends), size - _REACH))
        ends += file.read()
    return not ends or any(sign in ends for sign in _SIGNS)
