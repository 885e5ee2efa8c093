"""Draw random numbers as a pure function of (seed, step, purpose, example).

No key is carried from step to step or split by device: every example has its own key, made from
its position in the global batch. Results therefore do not depend on how devices or processes
share the batch, and a resumed run draws exactly what the uninterrupted one would have drawn.

Nor do they depend on the environment. JAX has switches for the generator, for how it counts, for
an offset of all seeds and for 64-bit numbers, each of which would draw something else: the
generator is named in every key (`run_key`), and `reproducible` decides the others.
"""

import enum
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key, Num

from ddgan_jax.state import AnyArray, Keys

IMPLEMENTATION = "threefry2x32"
# JAX's default: number i of an array does not depend on the size of the array.
PARTITIONABLE = True


class Purpose(enum.IntEnum):
    """What a draw is for. Values are part of the meaning of a seed: never renumber them."""

    INITIAL_PARAMS = 0
    FLIP = 1
    DISCRIMINATOR_STEP = 2
    GENERATOR_STEP = 3
    TIME = 4
    NOISE_T = 5
    NOISE_TP1 = 6
    LATENT = 7
    POSTERIOR = 8
    DROPOUT = 9
    AUGMENTATION_TIME = 10
    AUGMENTATION_REAL = 11
    AUGMENTATION_FAKE = 12
    SAMPLE = 13
    DROPOUT_REAL = 14
    DROPOUT_FAKE = 15
    AFD = 16


@contextmanager
def reproducible() -> Iterator[None]:
    """Set JAX's switches that change results, for this thread and as long as the context lasts.

    Random numbers as PARTITIONABLE says, 32-bit types, NumPy's rules for mixed types and shapes. To
    be entered around the outermost call of what is compiled, for JAX reads the switches when it
    traces and again when it compiles: inside a traced function is too late. Entering costs five
    microseconds. Also a decorator, but not of a generator function, whose body runs later.
    """
    with (
        jax.threefry_partitionable(PARTITIONABLE),
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def about() -> dict[str, object]:
    """Return what `reproducible` and `run_key` decide, for records: what JSON can hold."""
    return {"implementation": IMPLEMENTATION, "partitionable": PARTITIONABLE}


def example_keys(
    key: Key[jax.Array, ""],
    step: int | Int[AnyArray, ""],
    purpose: Purpose,
    index: Int[AnyArray, " b"],
) -> Keys:
    """Return one key for each example. key: of the run's seed. index: as in `state.Batch`."""
    # The order of the folds is part of the meaning of a seed, like the numbers of the purposes.
    step_key = jax.random.fold_in(jax.random.fold_in(key, step), purpose)
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key, index)


def refine(keys: Keys, purpose: int | Int[AnyArray, ""]) -> Keys:
    """Return the keys of one further purpose, or of step `purpose` of the sampler."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, purpose)


def normal(keys: Keys, purpose: Purpose, shape: tuple[int, ...]) -> Float[jax.Array, " b *shape"]:
    """Draw N(0, 1), float32 (B, *shape), each example from its own key."""
    # The type is named, because JAX's default type depends on a switch.
    draw = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))
    return draw(refine(keys, purpose))


def latent(keys: Keys, distribution: str, shape: tuple[int, ...]) -> Float[jax.Array, " b *shape"]:
    """Draw z, float32 (B, *shape): "normal" N(0, 1), "uniform" [0, 1), or zeros for "none"."""
    if distribution == "none":
        return jnp.zeros((len(keys), *shape), jnp.float32)
    if distribution == "normal":
        return normal(keys, Purpose.LATENT, shape)
    draw = jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32))
    return draw(refine(keys, Purpose.LATENT))


def flip_examples(keys: Keys, images: Num[AnyArray, "b h w c"]) -> Num[jax.Array, "b h w c"]:
    """Mirror each image left-right with probability 1/2."""
    # The keys have one purpose only, and are used as they are.
    flip = jax.vmap(jax.random.bernoulli)(keys)
    # One number decides over a whole image.
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def run_key(seed: int | jax.Array) -> jax.Array:
    """Return the root key of a seed, a run's or an image's; every key in this package is from one.

    seed: an integer, 0 to 2^32 - 1. The key is that of `jax.random.key`, but made from its two
    words, because $JAX_RANDOM_SEED_OFFSET is added to what goes through that function.
    """
    # A seed of 32 bits fills the lower word, as in `jax.random.key`.
    words = jnp.stack([jnp.uint32(0), jnp.asarray(seed, jnp.uint32)])
    return jax.random.wrap_key_data(words, impl=IMPLEMENTATION)
