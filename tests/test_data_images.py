"""Decoding, channels and size of single images."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ddgan_jax.data import decode
from ddgan_jax.errors import UserError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image, file_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip_is_exact(channels):
    pixels = noise(5, 7, channels)
    np.testing.assert_array_equal(decode.decode(decode.encode_png(pixels), channels), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_gives_the_colours_seen(mode):
    """A palette's indices, an alpha channel or a single bit never leak into the pixels."""
    colour = np.zeros((4, 6, 3), np.uint8)
    colour[:, 3:] = 255 if mode in ("1", "L", "LA") else (255, 0, 255)  # survive any palette
    encoded = encode(Image.fromarray(colour).convert(mode), "PNG")
    np.testing.assert_array_equal(decode.decode(encoded, 3), colour)


@pytest.mark.parametrize("channels", [1, 3])
def test_cmyk_jpeg_gives_colours(channels):
    encoded = encode(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "JPEG")
    np.testing.assert_allclose(decode.decode(encoded, channels), 0, atol=2)


def test_gray_and_rgb_are_converted_alike_from_files_and_from_pixels():
    for channels in (1, 3):
        pixels = noise(5, 4, channels)
        wanted = 4 - channels
        converted = decode.convert_channels(pixels, wanted)
        np.testing.assert_array_equal(converted, decode.decode(decode.encode_png(pixels), wanted))
    np.testing.assert_array_equal(
        decode.convert_channels(noise(5, 4, 1), 3), noise(5, 4, 1).repeat(3, -1)
    )


def test_sixteen_bits_are_refused():
    encoded = encode(Image.fromarray(np.full((4, 4), 40_000, np.uint16)), "PNG")
    with pytest.raises(UserError, match="more than 8 bits"):
        decode.decode(encoded, 1)


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_a_colour_are_refused(kind, channels):
    """Pillow itself would drop the lower eight; it cannot write such files."""

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(4 * 2 * channels)) * 4)
    encoded = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)
    with pytest.raises(UserError, match="more than 8 bits"):
        decode.decode(encoded + chunk(b"IEND", b""), None)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_no_truncated_file_decodes(file_format):
    encoded = encode(Image.fromarray(noise(24, 24, 3)), file_format)
    for length in np.linspace(0, 0.9 * len(encoded), 20, dtype=int):
        with pytest.raises(UserError):
            decode.decode(encoded[:length], 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_fitting_an_image_of_the_right_size_is_nothing(channels):
    pixels = noise(8, 8, channels)
    assert decode.fit(pixels, 8) is pixels


@pytest.mark.parametrize(
    ("height", "width", "offset"), [(8, 14, 3), (8, 11, 2), (8, 13, 2), (15, 8, 4)]
)
def test_crop_is_central(height, width, offset):
    """The shorter side fits already; an offset of x.5 goes to the even neighbour."""
    pixels = noise(height, width, 3)
    rows, columns = (slice(offset, offset + 8), slice(None))[:: 1 if height > width else -1]
    np.testing.assert_array_equal(decode.fit(pixels, 8), pixels[rows, columns])


def test_shrinking_is_bilinear_with_antialiasing():
    """Halving: the triangle filter of 4 pixels has the weights 1, 3, 3, 1 (over 8)."""
    pixels = noise(16, 16, 1)
    weights = np.zeros((8, 16))
    for row in range(8):
        for offset, weight in zip(range(-1, 3), (1, 3, 3, 1), strict=True):
            if 0 <= 2 * row + offset < 16:
                weights[row, 2 * row + offset] = weight
    weights /= weights.sum(axis=1, keepdims=True)
    expected = weights @ pixels[..., 0] @ weights.T
    np.testing.assert_allclose(decode.fit(pixels, 8)[..., 0], expected, atol=1)


@pytest.mark.parametrize(("height", "width"), [(47, 100), (100, 47), (64, 64), (33, 32)])
def test_result_has_the_size(height, width):
    assert decode.fit(noise(height, width, 3), 32).shape == (32, 32, 3)


def test_images_are_enlarged_only_if_asked():
    with pytest.raises(UserError, match="100x31 pixels, .* data.resize='up'"):
        decode.fit(noise(31, 100, 3), 32)
    assert decode.fit(noise(31, 100, 3), 32, small="up").shape == (32, 32, 3)


def test_enlarging_is_bilinear():
    """Doubling: each new pixel lies a quarter from the nearest old one; edges continue."""
    pixels = noise(4, 4, 1)
    weights = np.zeros((8, 4))
    for row in range(8):
        near, far = row // 2, row // 2 + (1 if row % 2 else -1)
        weights[row, near] += 0.75
        weights[row, min(max(far, 0), 3)] += 0.25
    expected = weights @ pixels[..., 0] @ weights.T
    enlarged = decode.fit(pixels, 8, small="up")[..., 0]
    np.testing.assert_allclose(enlarged, expected, atol=1)


@pytest.mark.parametrize("height", [1, 4, 5, 7, 8, 11])
@pytest.mark.parametrize("channels", [1, 3])
def test_padding_puts_black_around_the_image(height, channels):
    """Half of the missing rows are above; of an image that is too high the centre is kept."""
    pixels = noise(height, 6, channels)
    padded = decode.fit(pixels, 8, small="pad")
    above = (8 - height) // 2
    expected = np.zeros((8, 8, channels), np.uint8)
    if height <= 8:
        expected[above : above + height, 1:7] = pixels
    else:
        expected[:, 1:7] = pixels[1:9]
    np.testing.assert_array_equal(padded, expected)


def test_padding_changes_small_images_alone():
    pixels = noise(47, 100, 3)
    np.testing.assert_array_equal(decode.fit(pixels, 32, small="pad"), decode.fit(pixels, 32))


def test_the_shorter_side_is_read_from_the_head():
    encoded = encode(Image.fromarray(noise(40, 30, 3)), "PNG")
    assert decode.shorter_side(encoded) == decode.shorter_side(encoded[:60]) == 30
    with pytest.raises(UserError, match="no PNG"):
        decode.shorter_side(b"no image")
