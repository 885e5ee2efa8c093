"""The whole few-step sampler as one portable file that runs with nothing but JAX.

    sampler.call(seeds)                    uint32 (N,) -> uint8 (N, H, W, C)
    sampler.call(seeds, labels)            of a model with classes; labels: int32 (N,)
    sampler.call(arrays, seeds, labels)    parameters as the first argument, a dict by name

N is free. The images are those of `drawing.make_drawer`, bit by bit on the same kind of device,
for which three things are needed. Rounding depends on the shapes that a compiled program sees:
here as there it works on sampling.chunk_size images at a time. It also depends on what the
compiler knows: parameters that lie inside are hidden from it behind a barrier, or it would fold
them into other operations. And float becomes uint8 as in `images.to_uint8`, but for NaN, which no
array program can refuse: it is black.
"""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from ml_collections import ConfigDict

from ddgan_jax import build, images, randomness
from ddgan_jax.images import HALF_RANGE
from ddgan_jax.models import parameters
from ddgan_jax.state import Params

PLATFORMS = ("cpu", "cuda", "tpu")


@randomness.reproducible()
def export_sampler(config: ConfigDict, params: Params, *, inside: bool) -> bytes:
    """The serialized program for CPU, CUDA and TPU at once, to be read by jax.export.deserialize.

    params: float32 or bfloat16, computed with as float32. inside: they lie in the file; otherwise
    they are the first argument.
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
    """sample(params, seeds, labels) -> images; without labels those of a model without classes."""
    sampler = build.sampler(config)
    size = config.sampling.chunk_size
    finish = jnp.asarray if images.are_points(sampler.image_shape) else to_uint8

    def program(params: Params, seeds: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        params = jax.lax.optimization_barrier(params)
        params = jax.tree.map(lambda a: a.astype(jnp.float32), params)
        params = jax.lax.optimization_barrier(params)
        labels = jnp.zeros_like(seeds, jnp.int32) if labels is None else labels
        count = seeds.shape[0]
        chunks = -(-count // size)
        filled = jnp.arange(chunks * size) % count
        inputs = tuple(part[filled].reshape(chunks, size) for part in (seeds, labels))
        drawn = jax.lax.map(lambda chunk: finish(sampler(params, *chunk).x_t[-1]), inputs)
        return drawn.reshape(chunks * size, *drawn.shape[2:])[:count]

    return program


def to_uint8(images: jax.Array) -> jax.Array:
    """As `images.to_uint8`, on the device; NaN becomes 0."""
    levels = jnp.clip(jnp.round((images + 1) * HALF_RANGE), 0, 255)
    return jnp.where(jnp.isnan(levels), 0, levels).astype(jnp.uint8)


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Programs carry the places in the source that they were made from: here no folder, no caller.

    The same sampler is then the same bytes wherever the package and the program using it lie.
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
