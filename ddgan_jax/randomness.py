"""Random draws as a pure function of (seed, step, purpose, example).

No key is carried from step to step or split by device: every example has its own key, made from
its position in the global batch. Results therefore do not depend on how devices or processes
share the batch, and a resumed run draws exactly what the uninterrupted one would have drawn.
"""

import enum

import jax
import jax.numpy as jnp

from ddgan_jax.types import PyTree


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


def example_keys(key: jax.Array, step: jax.Array, purpose: Purpose, index: jax.Array) -> jax.Array:
    """One key per example. key: of the run's seed; step: int scalar; index: int (B,) -> (B,)."""
    step_key = jax.random.fold_in(jax.random.fold_in(key, step), purpose)
    return jax.vmap(jax.random.fold_in, (None, 0))(step_key, index)


def refine(keys: jax.Array, purpose: int | jax.Array) -> jax.Array:
    """The keys (B,) of one further purpose (or of step `purpose` of the sampler)."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, purpose)


def normal(keys: jax.Array, purpose: Purpose, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal (B, *shape), float32, each example from its own key. keys: (B,)."""
    draw = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))
    return draw(refine(keys, purpose))


def latent(keys: jax.Array, distribution: str, shape: tuple[int, ...]) -> jax.Array:
    """z (B, *shape), float32: "normal" N(0, 1), "uniform" [0, 1), or zeros for "none"."""
    if distribution == "none":
        return jnp.zeros((len(keys), *shape), jnp.float32)
    if distribution == "normal":
        return normal(keys, Purpose.LATENT, shape)
    draw = jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32))
    return draw(refine(keys, Purpose.LATENT))


def flip_examples(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Each image mirrored left-right with probability 1/2. images: (B, H, W, C)."""
    flip = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def run_key(seed: int) -> PyTree:
    """The root key of a run."""
    return jax.random.key(seed)
