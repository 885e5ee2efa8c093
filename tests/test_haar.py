"""Laws of the Haar bands, and of the space that they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddgan_jax import haar
from ddgan_jax.haar import Bands, Details, Pixels
from ddgan_jax.models import resample

pytestmark = pytest.mark.quick

ORDERS = ("lh_hl", "hl_lh")
every_order = pytest.mark.parametrize("order", ORDERS)
# (..., H, W, C) of bands; images have twice the sides.
SHAPES = st.tuples(
    st.lists(st.integers(1, 3), max_size=2).map(tuple),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
).map(lambda parts: parts[0] + parts[1])
SEEDS = st.integers(0, 2**32 - 1)
# Each new shape is compiled.
few = settings(max_examples=10, deadline=None)
split, join = jax.jit(haar.split), jax.jit(haar.join)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def images(shape, seed=0):
    """Uniform in [-1, 1], of multiples of 2^-20, whose sums of four are exact in float64.

    shape: of their bands.
    """
    *n, h, w, c = shape
    drawn = np.random.default_rng(seed).integers(-(2**20), 2**20 + 1, (*n, 2 * h, 2 * w, c))
    return jnp.asarray(drawn / 2**20)


def four(shape, seed=0):
    """Bands of any numbers."""
    ll, *details = map(jnp.asarray, np.random.default_rng(seed).standard_normal((4, *shape)))
    return ll, Details(*details)


def energy(*arrays):
    return sum(np.square(a).sum() for a in arrays)


# ---- the transform


@given(SHAPES, SEEDS)
@few
def test_bands_are_the_sums_and_differences_of_2x2(shape, seed):
    """Equation 1 and the names of the bands, for any number of axes in front."""
    x = images(shape, seed)
    a, b = x[..., ::2, ::2, :], x[..., ::2, 1::2, :]
    c, d = x[..., 1::2, ::2, :], x[..., 1::2, 1::2, :]
    ll, details = split(x)
    np.testing.assert_array_equal(ll, (a + b + c + d) / 2)
    np.testing.assert_array_equal(details.lh, (a - b + c - d) / 2)  # left minus right
    np.testing.assert_array_equal(details.hl, (a + b - c - d) / 2)  # above minus below
    np.testing.assert_array_equal(details.hh, (a - b - c + d) / 2)


@given(SHAPES, SEEDS)
@few
def test_join_is_the_inverse_of_split(shape, seed):
    """Bit for bit for numbers whose sums are exact, and for any bands up to rounding."""
    x = images(shape, seed)
    np.testing.assert_array_equal(join(*split(x)), x)
    ll, details = four(shape, seed)
    again, others = split(join(ll, details))
    np.testing.assert_allclose([again, *others], [ll, *details], rtol=0, atol=1e-14)


@given(SHAPES, SEEDS)
@few
def test_transform_is_orthonormal(shape, seed):
    """It keeps the energy, and its inverse is its transpose, so that it is its gradient."""
    x, cotangents = images(shape, seed), four(shape, seed)
    ll, details = split(x)
    np.testing.assert_allclose(energy(ll, *details), energy(x), rtol=1e-12)
    (gradient,) = jax.jit(lambda x, y: jax.vjp(haar.split, x)[1](y))(x, cotangents)
    np.testing.assert_allclose(gradient, join(*cotangents), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("n", "h", "w"), [(1, 1, 1), (2, 3, 5)])
def test_ll_is_what_resampling_by_means_and_repetition_has(n, h, w):
    """LL / 2 is the 2 x 2 mean, and joining 2 h without details repeats each pixel of h."""
    x = images((n, h, w, 3))
    mean = resample.downsample_mean(x)
    ll, details = split(x)
    np.testing.assert_allclose(ll / 2, mean, rtol=0, atol=1e-15)
    no_details = jax.tree.map(jnp.zeros_like, details)
    repeated = np.repeat(np.repeat(mean, 2, axis=1), 2, axis=2)
    np.testing.assert_array_equal(join(2 * mean, no_details), repeated)
    np.testing.assert_array_equal(resample.upsample_nearest(mean), repeated)


@given(st.integers(1, 5), st.integers(1, 5))
@few
def test_odd_sides_are_refused(h, w):
    x = np.zeros((2, h, w, 1))
    if h % 2 or w % 2:
        with pytest.raises(ValueError, match=f"{h} x {w} pixels has no Haar bands"):
            haar.split(x)
    else:
        haar.split(x)


# ---- the space


@given(SHAPES, st.sampled_from(ORDERS), SEEDS)
@few
def test_decoding_is_the_inverse_of_encoding(shape, order, seed):
    encode, decode = jax.jit(Bands(order).encode), jax.jit(Bands(order).decode)
    x = images(shape, seed)
    y = encode(x)
    *n, h, w, c = shape
    assert y.shape == (*n, h, w, 4 * c)
    np.testing.assert_array_equal(decode(y), x)
    z = jnp.asarray(np.random.default_rng(seed).standard_normal(y.shape))
    np.testing.assert_allclose(encode(decode(z)), z, rtol=0, atol=1e-14)


@every_order
def test_bands_stay_in_the_range_of_images(order):
    """[-1, 1], and the ends are reached: every pattern of black and white 2 x 2 blocks."""
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(2, 2, -1)
    y = np.asarray(Bands(order).encode(jnp.moveaxis(corners, -1, 0)[..., None]))
    assert y.min() == -1 and y.max() == 1
    np.testing.assert_array_equal(np.abs(y).max((0, 1, 2)), np.ones(4))


def test_orders_differ_by_the_exchange_of_two_bands():
    x = images((2, 3, 5, 3))
    ours, other = (np.split(Bands(order).encode(x), 4, axis=-1) for order in ORDERS)
    for i, j in enumerate((0, 2, 1, 3)):
        np.testing.assert_array_equal(ours[i], other[j])
    ll, details = split(x)
    np.testing.assert_array_equal(np.concatenate([ll, *details], -1) / 2, np.concatenate(ours, -1))


@every_order
def test_noise_on_bands_is_twice_the_noise_on_pixels(order):
    """Decoding is linear, doubles lengths, and so keeps white noise white."""
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((4, 16, 16, 12)))
    space = Bands(order)
    y = space.encode(images((4, 16, 16, 3)))
    pixels = space.decode(y + noise) - space.decode(y)
    np.testing.assert_allclose(pixels, space.decode(noise), rtol=0, atol=1e-13)
    np.testing.assert_allclose(energy(pixels), 4 * energy(noise), rtol=1e-12)


def test_pixels_are_left_alone():
    x = images((1, 2, 2, 3))
    assert Pixels().encode(x) is x and Pixels().decode(x) is x
