"""Make random keys for initial parameters, the draws of which compile in no time.

JAX's own generators are compiled again for each array of a network: on a CPU that was 26 s of the
27 s that the parameters of a small DDGAN took, and 3 to 4 s of 4 s with these. Number i of an array
is, with a key of two words k and the 32-bit mixing function h ("lowbias32", C. Wellons,
github.com/skeeto/hash-prospector, [16 21f0aaad 15 d35a2d97 15]),

    bits_i = h(h(i ^ k_0) + k_1)                                                                (1)

Eight integer operations beside a counter: what an initialiser needs, and no more. Training and
sampling draw from JAX's default generator.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import define_prng_impl


def hash_key(key: jax.Array) -> jax.Array:
    """Return a key of this kind from one of JAX's default kind, both scalars."""
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPLEMENTATION)


def mix(x: jax.Array) -> jax.Array:
    """Return h of equation 1, a bijection of the 32-bit numbers that spreads every bit over all."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)


def _seed(seed: jax.Array) -> jax.Array:
    return _fold_in(jnp.array([0x243F6A88, 0x85A308D3], jnp.uint32), seed)  # digits of pi


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    # The words of the new key take the old ones in either order, or they would be equal.
    return jnp.stack([mix(mix(data.astype(jnp.uint32) ^ key[1 - i]) + key[i]) for i in range(2)])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # Not the keys that folding in these numbers gives.
    branch = _fold_in(key, jnp.uint32(2**32 - 1))
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    return jax.vmap(_fold_in, (None, 0))(branch, numbers).reshape(*shape, 2)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    # JAX asks for 64 bits where floats are 64 bits wide.
    if bit_width == 64:
        low, high = (_random_bits(half, 32, shape) for half in _split(key, (2,)))
        return low.astype(jnp.uint64) | (high.astype(jnp.uint64) << 32)
    counter = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return mix(mix(counter ^ key[0]) + key[1]).astype(f"uint{bit_width}")


_IMPLEMENTATION = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,  # type: ignore[arg-type]  # JAX says int, and hands over an array
    name="ddgan_jax_hash",
    tag="hash",
)
