"""Draw any number of images with a sampler that is compiled once, on all given devices.

A compiled sampler always sees the same number of images on each device. A shorter request is filled
up and cut, so that the image of a seed has the same bits whatever else is drawn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from ddgan_jax import compiler, distributed, pixels, randomness
from ddgan_jax.config import MOST_IMAGES, ConfigDict
from ddgan_jax.errors import NotFiniteError, UserError
from ddgan_jax.sampling import UNVARIED, Sampler, Trajectory, Variation
from ddgan_jax.state import Params

Draw = Callable[..., Iterator[Any]]


class Request(NamedTuple):
    """The images to draw: a seed and a class (0 where there are none) for each."""

    seeds: Sequence[int] | np.ndarray
    labels: Sequence[int] | np.ndarray


@randomness.reproducible()
def make_drawer(
    sampler: Sampler,
    devices: distributed.Devices,
    chunk_size: int,
    *,
    start: int = 0,
    trajectory: bool = False,
) -> Draw:
    """Return draw(params, request, variation=UNVARIED), which yields images in chunks, in order.

    Chunks are uint8 (n, H, W, C), or float32 points of the toy sets; with `trajectory` they are
    `Trajectory` tuples of float32 arrays (n, steps, H, W, C). The sampler is compiled once, for
    `chunk_size` images on each device. params: replicated over `devices`. Raises UserError as
    `Sampler.denoise`.
    """
    if not 0 <= start < sampler.schedule.num_timesteps:
        raise UserError(f"`start={start}`: the steps are 0 to {sampler.schedule.num_timesteps - 1}")

    def sample(params: Params, inputs: tuple) -> Any:
        (seeds, labels), variation = inputs
        drawn = sampler(params, seeds, labels, variation, start)
        # The axis of images comes first, since it is divided among the devices and cut by chunks.
        return _images_first(drawn) if trajectory else drawn.x_t[-1]

    # Around each call: around a `yield` the context would be that of whoever reads the images.
    run = randomness.reproducible()(distributed.map_examples(sample, devices))
    size = chunk_size * len(devices)
    as_they_are = trajectory or pixels.are_points(sampler.image_shape)
    # Points have no levels, and figures need the floats of a trajectory.
    finish = np.asarray if as_they_are else pixels.to_uint8

    compiled = set()

    def start_drawing(params: Params, inputs: tuple) -> Any:
        # A variation that is not there is no argument of the program: each kind has its own.
        kind = jax.tree.structure(inputs)
        if kind in compiled:
            return run(params, inputs)
        with compiler.kept_programs():
            drawn = run(params, inputs)
        compiled.add(kind)
        return drawn

    def fetch(drawn: Any, count: int) -> Any:
        return jax.tree.map(lambda a: finish(np.asarray(a)[:count]), drawn)

    def draw(params: Params, request: Request, variation: Variation = UNVARIED) -> Iterator[Any]:
        seeds, labels = np.asarray(request.seeds, np.uint32), np.asarray(request.labels, np.int32)
        inputs = ((seeds, labels), variation)
        running = None
        for first in range(0, len(seeds), size):
            chunk = jax.tree.map(lambda a, i=first: a[i : i + size], inputs)
            # np.resize repeats the chunk until it is full: every call has the shapes of the one
            # compiled program.
            filled = jax.tree.map(lambda a: np.resize(a, (size, *a.shape[1:])), chunk)
            # The devices begin with this chunk before anyone waits for the last one.
            previous, running = running, (start_drawing(params, filled), len(chunk[0][0]))
            if previous:
                yield fetch(*previous)
        if running:
            yield fetch(*running)

    return draw


def _images_first(drawn: Trajectory) -> Trajectory:
    """Return the trajectory with the axis of images before the axis of steps."""
    return jax.tree.map(lambda a: a.swapaxes(0, 1), drawn)


def checked(chunks: Iterable[Any], drawn_by: str, chunk_size: int) -> Iterator[Any]:
    """Yield the chunks of a drawer. Raises UserError for numbers that are not finite, or too many.

    drawn_by: the model, for the message.
    """
    try:
        for chunk in chunks:
            for array in jax.tree.leaves(chunk):
                # uint8 images are finite; the floats that they came from have been checked on the
                # way.
                if array.dtype != np.uint8 and not np.isfinite(array).all():
                    raise NotFiniteError("the images hold numbers that are not finite")
            yield chunk
    except NotFiniteError as error:
        raise NotFiniteError(
            f"{drawn_by} draws images that are not finite: take an earlier checkpoint, with `step`"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        # JAX has one class of errors for all failures on devices, and its text alone tells them
        # apart.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"drawing {chunk_size:,} images at a time takes more memory than there is: take a "
            "smaller sampling.chunk_size in the model's config"
        ) from error


def concatenate(chunks: Iterable[Any]) -> Any:
    """Return the chunks of a drawer as one array (N, H, W, C), or as one `Trajectory`."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def draw_all(draw: Draw, params: Params, request: Request) -> np.ndarray:
    """Return all images of the request as one array (N, H, W, C)."""
    return concatenate(draw(params, request))


# ---- requests


def each_class(
    num_classes: int, seeds: Sequence[int] | np.ndarray, labels: Sequence[int] | Literal["all"] = ()
) -> Request:
    """Return the request for every seed with every label, one label after the other.

    Without labels seed s has class s modulo the number of classes, or none if there are none.
    Raises UserError for a label that the model does not know, and for more than MOST_IMAGES.
    """
    check_count(len(seeds) * (num_classes if labels == "all" else max(len(labels), 1)))
    seeds = np.asarray(seeds, np.uint32)
    if labels and not num_classes:
        raise UserError("`labels`: this model was trained without classes")
    if not labels:
        return Request(seeds, (seeds % max(num_classes, 1)).astype(np.int32))
    classes = range(num_classes) if labels == "all" else labels
    for label in classes:
        if not 0 <= label < num_classes:
            raise UserError(f"`labels`: {label} is not one of the classes 0 to {num_classes - 1}")
    repeated = np.repeat(np.asarray(classes, np.int32), len(seeds))
    return Request(np.tile(seeds, len(classes)), repeated)


def check_count(count: int) -> None:
    """Refuse more images than one request can hold in memory. Raises UserError."""
    if count > MOST_IMAGES:
        raise UserError(f"{count:,} images in one request; at most {MOST_IMAGES:,} are possible")


def names(request: Request) -> list[str]:
    """Return a file name for each image: its seed, after its class if seeds are repeated."""
    if len(np.unique(request.seeds)) == len(request.seeds):
        return [f"{seed:06d}" for seed in request.seeds]
    return [f"class{c:04d}_{s:06d}" for s, c in zip(*request, strict=True)]


def overview(config: ConfigDict) -> Request:
    """Return the log.num_samples images of a run's grids: seeds 0, 1, .. of the first classes."""
    count, num_classes = config.log.num_samples, config.data.num_classes
    if not num_classes:
        return each_class(0, range(count))
    # Grids show every class, or as many as they have images for.
    labels = range(min(num_classes, count))
    return each_class(num_classes, range(count // len(labels)), labels)
