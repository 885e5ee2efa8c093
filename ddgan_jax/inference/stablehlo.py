"""Export the whole few-step sampler as one portable file that runs with nothing but JAX.

    sampler.call(seeds)                    uint32 (N,) -> uint8 (N, H, W, C)
    sampler.call(seeds, labels)            of a model with classes; labels: int32 (N,)
    sampler.call(arrays, seeds, labels)    parameters as the first argument, a dict by name

N is free. On the same kind of device the images equal those of `drawing.make_drawer` bit by bit,
for which three things are needed. Rounding depends on the shapes that a compiled program sees, so
the program works on sampling.chunk_size images at a time, as `drawing` does. Rounding also depends
on the values that the compiler knows: it would fold parameters inside the program into other
operations, and a barrier hides them from it. Last, floats become uint8 as in `pixels.to_uint8`,
except that NaN, which an array program cannot refuse, becomes black.
"""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from ml_collections import ConfigDict

from ddgan_jax import build, pixels, randomness
from ddgan_jax.models import parameters
from ddgan_jax.state import Params

PLATFORMS = ("cpu", "cuda", "tpu")


@randomness.reproducible()
def export_sampler(config: ConfigDict, params: Params, *, inside: bool) -> bytes:
    """Return one program for CPU, CUDA and TPU, as jax.export.deserialize reads it.

    params: float32 or bfloat16; computations are in float32. inside: whether the parameters lie in
    the file; otherwise they are the first argument of the program.
    """
    arrays = parameters.named(params)
    classes = config.data.num_classes > 0
    sample = make_program(config)

    def with_arrays(arrays: dict[str, jax.Array], *seeds_and_labels: jax.Array) -> jax.Array:
        return sample(parameters.nested(arrays), *seeds_and_labels)

    def alone(*seeds_and_labels: jax.Array) -> jax.Array:
        return with_arrays(arrays, *seeds_and_labels)

    (count,) = export.symbolic_shape("N")
    inputs = [jax.ShapeDtypeStruct((count,), np.uint32)]
    inputs += [jax.ShapeDtypeStruct((count,), np.int32)] * classes
    if not inside:
        inputs.insert(0, {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in arrays.items()})
    with _without_source_paths():
        exported = export.export(jax.jit(alone if inside else with_arrays), platforms=PLATFORMS)
        return bytes(exported(*inputs).serialize())


def make_program(config: ConfigDict) -> Callable[..., jax.Array]:
    """Return sample(params, seeds, labels) -> images; a model without classes needs no labels."""
    sampler = build.sampler(config)
    size = config.sampling.chunk_size
    finish = jnp.asarray if pixels.are_points(sampler.image_shape) else pixels.to_uint8_on_device

    def program(params: Params, seeds: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        params = jax.lax.optimization_barrier(params)
        params = jax.tree.map(lambda a: a.astype(jnp.float32), params)
        params = jax.lax.optimization_barrier(params)
        # The sampler takes labels in any case, and a model without classes reads none.
        labels = jnp.zeros_like(seeds, jnp.int32) if labels is None else labels
        count = seeds.shape[0]
        chunks = -(-count // size)
        # The last chunk is filled up with the first images again, as np.resize does in `drawing`.
        filled = jnp.arange(chunks * size) % count
        inputs = tuple(part[filled].reshape(chunks, size) for part in (seeds, labels))
        # `map` and not `vmap`: chunks go one after another, each with the shapes that `drawing`
        # compiles.
        drawn = jax.lax.map(lambda chunk: finish(sampler(params, *chunk).x_t[-1]), inputs)
        return drawn.reshape(chunks * size, *drawn.shape[2:])[:count]

    return program


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Keep folders and callers out of the source locations that JAX writes into a program.

    The same sampler then has the same bytes, wherever the package and the calling program lie.
    """
    settings = {
        "jax_hlo_source_file_canonicalization_regex": ".*/",
        "jax_traceback_in_locations_limit": 1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
