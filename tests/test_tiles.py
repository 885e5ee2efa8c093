"""Figures with words: every pixel of every image, every caption, the program that wrote them."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from ddgan_jax.errors import UserError
from ddgan_jax.files import ours
from ddgan_jax.viz import figure_files, tiles, words
from ddgan_jax.viz.tiles import Block, Picture

pytestmark = pytest.mark.quick

EVIL = '<script>alert("1")</script> & $x^2$'


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def figure(size=8, channels=1, **changes):
    given, drawn = noise(2, 1, size, size, channels), noise(2, 2, size, size, channels, seed=1)
    blocks = [
        Block("given", given, ["x₀: real"]),
        Block("drawn", drawn, ["seed 4", "seed 5"], [["one", "two\nlines"], ["three", ""]]),
    ]
    parts = {"title": "A title", "about": "A row for each.", "blocks": blocks}
    return Picture(**(parts | {"rows": ["k = 1", "k = 2"], "notes": "From -1 to 1."} | changes))


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def places(whole, part):
    """Where a part lies in a picture, as the corners (y, x) of all places that equal it."""
    height, width = part.shape[:2]
    found = []
    for y in range(len(whole) - height + 1):
        for x in np.flatnonzero((whole[y, : whole.shape[1] - width + 1] == part[0, 0]).all(-1)):
            if np.array_equal(whole[y : y + height, x : x + width], part):
                found.append((y, int(x)))
    return found


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (32, 3), (140, 3)])
def test_each_image_is_in_the_png_once_pixel_by_pixel(size, channels):
    drawn = figure(size, channels)
    whole = pixels(tiles.draw(drawn, ".png"))
    corners = []
    for block in drawn.blocks:
        for row in block.tiles:
            for tile in row:
                rgb = np.broadcast_to(tile, (size, size, 3))
                scale = -(-tiles.FEWEST_DOTS // size)
                found = places(whole, rgb.repeat(scale, axis=0).repeat(scale, axis=1))
                assert len(found) == 1
                corners += found
    # Rows lie at one height, and columns at one place from the left.
    ys, xs = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    assert len(ys) == 2 and len(xs) == 3


def test_every_word_is_in_the_svg_above_and_left_of_its_tiles():
    root = ET.fromstring(tiles.draw(figure(), ".svg"))
    space = "{http://www.w3.org/2000/svg}"
    found = {}
    for text in root.iter(f"{space}text"):
        numbers = text.get("transform", "") + " " + text.get("x", "") + " " + text.get("y", "")
        found["".join(text.itertext())] = numbers
    wanted = ["A title", "A row for each.", "given", "drawn", "x₀: real", "seed 4", "seed 5"]
    for word in [*wanted, "k = 1", "k = 2", "one", "two", "lines", "three", "From -1 to 1."]:
        assert word in found
    assert len(list(root.iter(f"{space}image"))) == 6
    # Smoothing viewers have whole squares to show, and not single pixels.
    assert all(float(image.get("width")) > 60 for image in root.iter(f"{space}image"))


@pytest.mark.parametrize("form", figure_files.FORMS)
def test_files_are_reproducible_and_say_which_program_wrote_them(form, tmp_path):
    content = tiles.draw(figure(), form)
    assert content == tiles.draw(figure(), form)
    path = tmp_path / f"x{form}"
    path.write_bytes(content)
    assert ours.may_be_replaced(path)


def test_the_paper_of_a_figure_is_as_large_for_small_and_large_images():
    """Inches and letters do not depend on the pixels; dots do."""
    inches = set()
    for size in (8, 32, 132, 264):
        image = Image.open(io.BytesIO(tiles.draw(figure(size), ".png")))
        inches.add(tuple(np.round(np.array(image.size) / image.info["dpi"][0], 1)))
    assert len(inches) == 1


def test_names_from_anywhere_are_shown_as_they_are():
    drawn = figure(title=EVIL, about=EVIL, rows=[EVIL, "\x1b[2J"], notes=EVIL)
    root = ET.fromstring(tiles.draw(drawn, ".svg"))
    texts = " ".join("".join(node.itertext()) for node in root.iter() if "text" in node.tag)
    assert "script>" in texts and "$x^2$" in texts and "\x1b" not in texts
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    assert tiles.draw(drawn, ".pdf").startswith(b"%PDF")


def test_a_figure_that_no_file_could_hold_is_refused_before_it_is_drawn():
    tiles.check_size(100, 8, 8)
    with pytest.raises(UserError, match="at most 147 rows or columns of images of 8 pixels"):
        tiles.check_size(10_000, 8, 8)


def test_a_place_may_stay_empty_and_long_captions_are_broken():
    image = noise(8, 8, 1)
    blocks = [Block("a", [[image], [None]]), Block("b", [[image] * 2, [image]], ["word " * 9, ""])]
    whole = pixels(tiles.draw(Picture("t", "about " * 40, blocks), ".png"))
    # White margins all around: no text is cut off.
    for edge in (whole[:8], whole[-8:], whole[:, :8], whole[:, -8:]):
        assert (edge == 255).all()


def test_subscripts():
    assert words.subscripted("x_0 predicted from x_12") == "x₀ predicted from x₁₂"
    assert words.rows([3, 4], [0, 1]) == ["seed 3\nclass 0", "seed 4\nclass 1"]
