"""Keys for initial parameters: the bits are those of the equation, and look random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax.models.hash_keys import hash_key, mix

KEY = hash_key(jax.random.key(7))
pytestmark = pytest.mark.quick


def mix_by_hand(x: int) -> int:
    x = (x ^ x >> 16) * 0x21F0AAAD % 2**32
    x = (x ^ x >> 15) * 0xD35A2D97 % 2**32
    return x ^ x >> 15


def test_bits_are_those_of_the_equation():
    a, b = (int(word) for word in jax.random.key_data(KEY))
    expected = [mix_by_hand((mix_by_hand(i ^ a) + b) % 2**32) for i in range(12)]
    bits = jax.random.bits(KEY, (3, 4))
    np.testing.assert_array_equal(bits.reshape(-1), np.array(expected, np.uint32))


def test_mixing_is_a_bijection():
    x = jnp.arange(2**16, dtype=jnp.uint32)
    for shift in (0, 16):
        assert len(np.unique(mix(x << shift))) == 2**16


@pytest.mark.parametrize("bit", [0, 7, 31])
def test_every_bit_of_the_counter_moves_half_of_the_bits(bit):
    x = jax.random.bits(jax.random.key(0), (4096,))
    flipped = np.bitwise_count(np.asarray(mix(x) ^ mix(x ^ jnp.uint32(1 << bit))))
    # 131,072 coin flips: within five standard deviations.
    np.testing.assert_allclose(flipped.mean() / 32, 0.5, atol=5 * 0.5 / np.sqrt(4096 * 32))


def test_uniform_numbers_fill_the_interval():
    u = np.asarray(jax.random.uniform(KEY, (2**17,)))
    counts = np.histogram(u, 256, (0, 1))[0]
    chi_squared = (np.square(counts - 512.0) / 512).sum()
    assert abs(chi_squared - 255) < 5 * np.sqrt(2 * 255)


def test_arrays_of_different_keys_are_unrelated():
    keys = [KEY, *jax.random.split(KEY, 3), *(jax.random.fold_in(KEY, i) for i in range(3))]
    draws = np.stack([np.asarray(jax.random.normal(key, (2**14,))) for key in keys])
    correlations = np.corrcoef(np.concatenate([draws, np.roll(draws, 1, axis=1)]))
    np.testing.assert_allclose(correlations, np.eye(len(correlations)), atol=5 / 2**7)
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(keys)


def test_double_precision_has_more_digits():
    with jax.enable_x64(True):
        u = np.asarray(jax.random.uniform(KEY, (64,), jnp.float64))
    assert u.dtype == np.float64 and (u != u.astype(np.float32)).any()
