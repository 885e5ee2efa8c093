"""Draw images with words: a title, what the rows and the columns are, numbers below single tiles.

A tile has the same size on paper whatever its pixels, so that the texts are as legible beside 8
pixels as beside 256; the resolution of the figure grows with the pixels instead. Each pixel becomes
a square of whole dots. Coordinates below are dots, from the top left corner.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ddgan_jax.errors import UserError
from ddgan_jax.viz import figure_files
from ddgan_jax.viz.style import INK, SOFT, clean, settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Side of a tile, in points (1/72 inch).
TILE = 66
# Fewest dots of a tile's side: text needs them, even where an image has fewer pixels.
FEWEST_DOTS = 132
# Dots along the longer side of a figure.
MOST_DOTS = 30_000
# Points: the margin of the figure, the gap between tiles, and the one between blocks.
MARGIN, GAP, WIDE_GAP = 12, 2, 12
# Points: the sizes of the texts, and the height of a line as a multiple of them.
TITLE, HEADING, CAPTION, SMALL = 12, 9, 8, 7
LINE = 1.3

Tile = UInt8[np.ndarray, "h w c"] | None
Row = Sequence[Tile] | UInt8[np.ndarray, "columns h w c"]
Rows = Sequence[Row] | UInt8[np.ndarray, "rows columns h w c"]


class Block(NamedTuple):
    """Tiles that belong together, below a heading.

    tiles: the rows; all images of a figure have one size, and None leaves a place empty. columns:
    captions above them. below: texts below the tiles, in the same places as these.
    """

    heading: str
    tiles: Rows
    columns: Sequence[str] = ()
    below: Sequence[Sequence[str]] = ()


class Picture(NamedTuple):
    """A figure: blocks side by side, of equally many rows. rows: captions to their left.

    about: what is seen, in small letters below the title. notes: sentences below the tiles, such
    as units.
    """

    title: str
    about: str
    blocks: Sequence[Block]
    rows: Sequence[str] = ()
    notes: str = ""


def check_size(rows: int, columns: int, size: int) -> None:
    """Refuse a figure of more tiles than one can be drawn of. size: pixels of a tile's side.

    Raises UserError.
    """
    most = MOST_DOTS // (round(1.5 * _scale(size) * size))
    if max(rows, columns) > most:
        raise UserError(
            f"a figure with captions has at most {most} rows or columns of images of {size} "
            f"pixels, not {max(rows, columns):,}: ask for fewer, or use `captions=none`"
        )


def draw(picture: Picture, form: str) -> bytes:
    """Return the file of a figure. form: an ending of `figure_files.FORMS`.

    Raises ValueError for blocks of different numbers of rows.
    """
    with settings(picture.title):
        return _Page(picture).file(form)


class _Page:
    """The layout of a figure, from the top to the bottom."""

    def __init__(self, picture: Picture):
        self._picture = picture
        tiles = [tile for block in picture.blocks for row in block.tiles for tile in row]
        size = next(len(tile) for tile in tiles if tile is not None)
        (self._rows,) = {len(block.tiles) for block in picture.blocks}
        self._scale = _scale(size)
        # Dots: the side of a tile, and those in a point.
        self._tile = self._scale * size
        self._dot = self._tile / TILE
        self._gap = self._dots(GAP)
        captions = [self._width(line, CAPTION) for row in picture.rows for line in row.split("\n")]
        # The captions of the rows have a column of their own, as wide as the widest of them.
        self._left = self._dots(MARGIN) + (max(captions) + self._dots(6) if captions else 0)
        self._lefts = list(self._block_lefts())
        last = self._lefts[-1] + self._block_width(picture.blocks[-1])
        # Narrow figures are widened for their titles.
        self._page_width = max(last, self._dots(230)) + self._dots(MARGIN)

    def file(self, form: str) -> bytes:
        from matplotlib.figure import Figure

        dpi = 72 * self._dot
        texts, images, height = self._layout()
        # The sizes are whole dots, so that the pixels of a PNG file are those of the images.
        figure = Figure((self._page_width / dpi, height / dpi), dpi=dpi)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, self._page_width), ylim=(height, 0))
        for x, y, tile in images:
            _place(axes, x, y, tile, self._scale)
        for x, y, text, style in texts:
            axes.text(x, y, text, **style)
        return figure_files.encoded(figure, form, clean(self._picture.title), dpi=dpi)

    def _layout(self) -> tuple[list[tuple], list[tuple], int]:
        """Return the texts and the images with their places, and the height of all."""
        picture, margin = self._picture, self._dots(MARGIN)
        texts: list[tuple] = []
        images: list[tuple] = []
        inside = self._page_width - 2 * margin
        y = margin
        title = {"size": TITLE, "weight": "bold", "color": INK, "ha": "left"}
        y = self._write(texts, margin, y, picture.title, title, inside)
        about = {"size": CAPTION, "color": SOFT, "ha": "left"}
        y = self._write(texts, margin, y + self._dots(2), picture.about, about, inside)
        y = self._heads(texts, y + self._dots(8))
        for row in range(self._rows):
            y = self._row(texts, images, row, y)
        y = y - self._gap
        if picture.notes:
            y = self._write(texts, margin, y + self._dots(8), picture.notes, about, inside)
        return texts, images, y + margin

    def _heads(self, texts: list[tuple], y: int) -> int:
        """Write headings and captions of the columns, whose last lines stand above the tiles."""
        for size, colour, weight, captions in (
            (HEADING, INK, "bold", [self._heading_of(b) for b in range(len(self._lefts))]),
            (CAPTION, SOFT, "normal", list(self._column_captions())),
        ):
            wrapped = [
                (x + width / 2, self._wrapped(text, size, width, weight))
                for x, width, text in captions
                if text
            ]
            if not wrapped:
                continue
            most = max(len(lines) for _, lines in wrapped)
            style = {"size": size, "color": colour, "weight": weight, "ha": "center"}
            for x, lines in wrapped:
                top = y + (most - len(lines)) * self._line(size)
                self._lines(texts, x, top, lines, style)
            y += most * self._line(size) + self._dots(3)
        return y

    def _row(self, texts: list[tuple], images: list[tuple], row: int, y: int) -> int:
        """Place a row of tiles, with what is written beside and below; return where it ends."""
        picture, below = self._picture, 0
        if picture.rows:
            lines = picture.rows[row].split("\n")
            top = y + (self._tile - len(lines) * self._line(CAPTION)) / 2
            style = {"size": CAPTION, "color": INK, "ha": "right"}
            self._lines(texts, self._left - self._dots(6), top, lines, style)
        small = {"size": SMALL, "color": SOFT, "ha": "center"}
        for block, left in zip(picture.blocks, self._lefts, strict=True):
            for column, tile in enumerate(block.tiles[row]):
                x = left + column * (self._tile + self._gap)
                if tile is not None:
                    images.append((x, y, tile))
                text = block.below[row][column] if block.below else ""
                lines = text.split("\n") if text else []
                top = y + self._tile + self._dots(1)
                self._lines(texts, x + self._tile / 2, top, lines, small)
                below = max(below, len(lines) * self._line(SMALL) + self._dots(4) * bool(lines))
        return y + self._tile + below + self._gap

    # ------------------------------------------------------------------------------ measures

    def _block_lefts(self) -> Iterable[int]:
        x = self._left
        for block in self._picture.blocks:
            yield x
            x += self._block_width(block) + self._dots(WIDE_GAP)

    def _block_width(self, block: Block) -> int:
        columns = max(len(row) for row in block.tiles)
        return columns * (self._tile + self._gap) - self._gap

    def _heading_of(self, number: int) -> tuple[float, float, str]:
        block, reach = self._picture.blocks[number], self._dots(WIDE_GAP - 4)
        # A heading may reach into the gaps beside its block.
        width = self._block_width(block)
        return self._lefts[number] - reach / 2, width + reach, block.heading

    def _column_captions(self) -> Iterable[tuple[float, float, str]]:
        for block, left in zip(self._picture.blocks, self._lefts, strict=True):
            for column, text in enumerate(block.columns):
                yield left + column * (self._tile + self._gap), self._tile, text

    def _dots(self, points: float) -> int:
        return round(points * self._dot)

    def _line(self, size: float) -> int:
        return self._dots(LINE * size)

    def _width(self, text: str, size: float, weight: str = "normal") -> int:
        return math.ceil(_points(text, size, weight) * self._dot)

    def _wrapped(self, text: str, size: float, width: float, weight: str = "normal") -> list[str]:
        """Return the lines of a text, broken between words where it is wider than that."""
        lines: list[str] = []
        for part in text.split("\n"):
            line = ""
            for word in clean(part).split(" "):
                longer = f"{line} {word}".strip()
                if line and self._width(longer, size, weight) > width:
                    lines.append(line)
                    longer = word
                line = longer
            lines.append(line)
        return lines

    def _write(
        self, texts: list[tuple], x: float, y: float, text: str, style: dict[str, Any], width: float
    ) -> int:
        lines = self._wrapped(text, style["size"], width, style.get("weight", "normal"))
        self._lines(texts, x, y, lines, style)
        return round(y + len(lines) * self._line(style["size"]))

    def _lines(
        self, texts: list[tuple], x: float, y: float, lines: Sequence[str], style: dict[str, Any]
    ) -> None:
        for number, line in enumerate(lines):
            # The baseline lies at four fifths of a line.
            base = y + (number + 0.8) * self._line(style["size"])
            texts.append((x, base, clean(line), style | {"va": "baseline"}))


def _scale(size: int) -> int:
    """Return the dots along the side of a pixel."""
    return max(1, math.ceil(FEWEST_DOTS / size))


def _place(axes: "Axes", x: int, y: int, tile: np.ndarray, scale: int) -> None:
    from matplotlib.image import AxesImage

    rgb = np.broadcast_to(tile, (*tile.shape[:2], 3))
    # Viewers smooth the pixels of an image; enlarged beforehand, these stay squares.
    large = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = large.shape[:2]
    extent = (x, x + width, y + height, y)
    image = AxesImage(axes, interpolation="none", origin="upper", extent=extent)
    image.set_data(large)
    axes.add_image(image)


@functools.lru_cache(maxsize=4096)
def _points(text: str, size: float, weight: str) -> float:
    """Return the width of a text in points, by the metrics of the figures' font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not text:
        return 0.0
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    box = TextPath((0, 0), text, prop=font, usetex=False).get_extents()
    return float(box.width)
