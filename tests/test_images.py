"""Images: exact conversion, grids from which each image can be cut out, files that read back."""

import numpy as np
import pytest
from PIL import Image

from ddgan_jax.errors import NotFiniteError, UserError
from ddgan_jax.images import (
    GAP,
    GOOD_SIZE,
    WHITE,
    grid,
    picture,
    scatter,
    write_png,
)
from ddgan_jax.pixels import to_float, to_uint8


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def read(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_uint8_is_the_inverse_of_the_scaling_to_floats(dtype):
    every = np.arange(256, dtype=np.uint8)
    scaled = every.astype(dtype) / dtype(127.5) - 1
    np.testing.assert_array_equal(to_uint8(scaled), every)
    np.testing.assert_array_equal(to_uint8(to_float(every)), every)
    np.testing.assert_array_equal(to_float(every), to_float(every.astype(dtype)))
    np.testing.assert_allclose(to_float(every), scaled, atol=1e-7)
    assert to_float(every).dtype == np.float32


def test_to_uint8_is_the_nearest_value():
    floats = np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32)
    distance = np.abs(to_uint8(floats) - (floats.astype(np.float64) + 1) * 127.5)
    assert 0.49 < distance.max() <= 0.5 + 1e-5  # 1e-5: rounding of float32 near a tie


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1.0, 0),
        (1.0, 255),
        (0.0, 128),  # 127.5: a tie goes to the even neighbour
        (-7.5, 0),
        (1.01, 255),
    ],
)
def test_to_uint8_at_known_values(value, expected):
    assert to_uint8(np.array([value])) == [expected]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_to_uint8_refuses_what_has_no_colour(value):
    with pytest.raises(NotFiniteError, match="not finite"):
        to_uint8(np.array([0.0, value]))


@pytest.mark.parametrize(
    ("shape", "options", "rows", "columns"),
    [
        ((9, 8, 8, 3), {}, 3, 3),
        ((10, 8, 8, 1), {}, 3, 4),  # two cells stay empty
        ((1, 32, 32, 3), {}, 1, 1),
        ((64, 96, 80, 3), {}, 8, 8),
        ((5, 4, 6, 3), {"columns": 5, "scale": 1}, 1, 5),
        ((5, 4, 6, 3), {"columns": 2, "scale": 3}, 3, 2),
    ],
)
def test_each_image_can_be_cut_out_of_the_grid(shape, options, rows, columns):
    images = noise(*shape)
    count, height, width, channels = shape
    joined = grid(images, **options)
    scale = options.get("scale", (joined.shape[1] + GAP) // columns // width)
    tall, wide = height * scale, width * scale
    assert joined.shape == (rows * (tall + GAP) - GAP, columns * (wide + GAP) - GAP, channels)

    rest = joined.astype(int)
    for index, image in enumerate(images):
        top, left = index // columns * (tall + GAP), index % columns * (wide + GAP)
        cell = (slice(top, top + tall), slice(left, left + wide))
        for dy in range(scale):  # every pixel of the enlarged image, not only the first of each
            np.testing.assert_array_equal(joined[cell][dy::scale, scale - 1 :: scale], image)
        rest[cell] = WHITE
    assert (rest == WHITE).all()


@pytest.mark.parametrize("size", [8, 28, 32, 64, 256])
@pytest.mark.parametrize("count", [1, 16, 100])
def test_small_images_are_enlarged_until_the_grid_is_good_to_look_at(count, size):
    columns = int(count**0.5)
    longer = max(grid(noise(count, size, size, 1)).shape)
    scale = (longer + GAP) // columns // size
    assert longer >= GOOD_SIZE
    assert scale == 1 or columns * size * (scale - 1) < GOOD_SIZE  # and no further


@pytest.mark.parametrize("channels", [1, 3])
def test_png_reads_back_and_replaces_what_was_there(tmp_path, channels):
    path = tmp_path / "new" / "a.png"
    for image in (noise(5, 7, channels), noise(5, 7, channels) // 2):
        write_png(path, image)
        np.testing.assert_array_equal(read(path).reshape(5, 7, channels), image)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


# ---- points


def test_each_point_of_a_scatter_is_a_pixel():
    """(x, y) to the right and upwards from the smallest coordinate to the largest, both axes alike.

    The pixel of the most points is black, the others at least 35 % gray.
    """
    points = [[-1, -1], [3, 3], [3, 3], [3, 3], [3, 3], [3, -1], [3, -1], [0, 1]]
    expected = np.full((5, 5), 255)
    expected[4, 0] = expected[2, 1] = int(255 * (1 - 0.35 - 0.65 / 4))
    expected[4, 4] = int(255 * (1 - 0.35 - 0.65 / 2))
    expected[0, 4] = 0
    drawn = scatter(np.array(points, np.float32)[:, None, None, :], size=5)
    assert drawn.dtype == np.uint8 and drawn.shape == (5, 5, 1)
    np.testing.assert_array_equal(drawn[..., 0], expected)


def test_scatter_of_one_point():
    assert (scatter(np.full((7, 2), 3.0), size=4) == 0).sum() == 1


def test_picture_of_images_and_of_points():
    images, points = noise(4, 8, 8, 3), np.random.default_rng(0).normal(size=(9, 1, 1, 2))
    points = points.astype(np.float32)
    np.testing.assert_array_equal(picture(images), grid(images))
    np.testing.assert_array_equal(picture(images, columns=4), grid(images, columns=4))
    np.testing.assert_array_equal(picture(points), scatter(points))


@pytest.mark.parametrize("out", ["file/a.png", "folder.png"])
def test_what_cannot_be_written_is_said(tmp_path, out):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=f"cannot write .*{out}: "):
        write_png(tmp_path / out, noise(8, 8, 3))
    assert (tmp_path / "file").read_text() == "mine"
    assert not list(tmp_path.glob("**/.*"))
