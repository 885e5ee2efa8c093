"""Train a row of a table of claims on one device, and measure it against the real images.

The classifier of single digits, trained on nine tenths of the real ones, reads each channel of an
image as a digit: its classes are the modes, its features the space of distance, precision and
recall.
"""

import functools
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from ddgan_jax import build, data, distributed, metrics, randomness
from ddgan_jax.config.files import from_dict
from ddgan_jax.data.datasets import Dataset
from ddgan_jax.errors import NotFiniteError
from ddgan_jax.evaluation import classifier
from ddgan_jax.evaluation.classifier import Trained
from ddgan_jax.inference import drawing
from ddgan_jax.models.classifier import classify
from ddgan_jax.state import Params

# Real and generated images whose neighbours precision and recall compare.
NEIGHBOURS = 2_000
# Steps between two looks at whether the losses are still finite.
CHECK_EVERY = 100
# Images that a call of the sampler draws.
CHUNK = 1_000


def open_digits(config: ConfigDict) -> tuple[Dataset, Trained]:
    """Return the real images of a config and the classifier of their single digits."""
    dataset = data.open_dataset(config)
    say = functools.partial(print, flush=True)
    if dataset.info.channels == 1:
        return dataset, classifier.of_dataset(dataset, say)
    return dataset, classifier.of_stacked_digits(config, say)


@randomness.reproducible()
def train(config: ConfigDict, dataset: Dataset) -> tuple[Params, float]:
    """Return the averaged parameters after train.num_steps on one device, and the seconds it took.

    Compilation is not counted. Raises NotFiniteError if the training diverges.
    """
    devices = distributed.all_devices()[:1]
    key = randomness.run_key(config.train.seed)
    initial = functools.partial(build.initial_state, config, key)
    state = distributed.create_replicated(initial, devices)
    # Steps with and without the R1 penalty are two programs, as in the training loop.
    programs: dict[bool, Any] = {}
    stream = data.batches(
        dataset,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=0,
    )
    seconds = 0.0
    try:
        for step in range(config.train.num_steps):
            batch = distributed.place_batch(next(stream), config.train.mapping, devices)
            r1 = build.r1_is_due(config, step)
            first = r1 not in programs
            if first:
                mapping = config.train.mapping
                programs[r1] = distributed.map_step(build.step(config, r1=r1), mapping, devices)
            start = time.monotonic()
            state, losses = programs[r1](state, batch, key)
            # JAX returns before the device has finished, and the first call compiles.
            jax.block_until_ready(losses)
            seconds += 0.0 if first else time.monotonic() - start
            if (step + 1) % CHECK_EVERY == 0:
                _require_finite(losses)
    finally:
        # Closing ends the threads that read ahead.
        stream.close()
    params = jax.device_get(state.generator.ema_params)
    _require_finite(params)
    return params, seconds


def _require_finite(tree: Any) -> None:
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(tree))):
        raise NotFiniteError("training diverged: a loss or a parameter is not finite")


@randomness.reproducible()
def draw(
    config: ConfigDict, params: Params, count: int
) -> tuple[UInt8[np.ndarray, "n h w c"], np.ndarray, float]:
    """Return images of the seeds 0 to count - 1, their classes, and seconds for 100 of them.

    The seconds are those of the fastest call, since other programs may use the machine as well.
    """
    request = drawing.each_class(config.data.num_classes, range(count))
    size = min(CHUNK, count)
    draw_chunks = drawing.make_drawer(build.sampler(config), distributed.all_devices()[:1], size)
    # The first call compiles.
    drawing.draw_all(draw_chunks, params, _part(request, 0, size))
    chunks, fastest = [], float("inf")
    for first in range(0, count, size):
        start = time.monotonic()
        chunks.append(drawing.draw_all(draw_chunks, params, _part(request, first, size)))
        fastest = min(fastest, time.monotonic() - start)
    return np.concatenate(chunks), np.asarray(request.labels), 100 * fastest / size


def _part(request: drawing.Request, first: int, size: int) -> drawing.Request:
    return drawing.Request(*(column[first : first + size] for column in request))


class Real(NamedTuple):
    """Real images and their features; see `read_digits`."""

    images: UInt8[np.ndarray, "m h w c"]
    features: Float[np.ndarray, "m features"]


def read_real(dataset: Dataset, most: int, digits: Trained) -> Real:
    """Return the first images of a set, `most` or all, with their features."""
    images, _ = dataset.read(np.arange(min(dataset.info.num_examples, most)))
    return Real(images, read_digits(digits.params, images)[0])


def measure(
    images: UInt8[np.ndarray, "n h w c"],
    labels: np.ndarray,
    real: Real,
    digits: Trained,
) -> dict[str, float]:
    """Return the numbers of generated images.

    labels: the classes that were asked for, int (n,); all 0 without classes. The numbers are modes
    and kl (of stacked digits) or class_right (of digits by class), frechet_pixels,
    frechet_classifier, precision and recall, the last three in the features of the classifier.
    """
    features, found = read_digits(digits.params, images)
    numbers: dict[str, float] = {}
    if images.shape[-1] == 3:
        modes, kl = metrics.mode_statistics(found @ np.array([100, 10, 1]), 1_000)
        numbers |= {"modes": modes, "kl": kl}
    else:
        numbers["class_right"] = float((found[:, 0] == labels).mean())
    pixels = [x.reshape(len(x), -1) / 255.0 for x in (real.images, images)]
    precision, recall = metrics.precision_recall(real.features[:NEIGHBOURS], features[:NEIGHBOURS])
    return numbers | {
        "frechet_pixels": metrics.frechet_distance(*pixels),
        "frechet_classifier": metrics.frechet_distance(real.features, features),
        "precision": precision,
        "recall": recall,
    }


@randomness.reproducible()
def read_digits(
    params: Params, images: UInt8[np.ndarray, "n h w c"]
) -> tuple[Float[np.ndarray, "n features"], np.ndarray]:
    """Return the features of all channels, side by side, and the digit in each, int (n, c)."""
    count, height, width, channels = images.shape
    singles = np.moveaxis(images, -1, 1).reshape(-1, height, width, 1)
    parts = [_classify(params, singles[i : i + CHUNK]) for i in range(0, len(singles), CHUNK)]
    features, logits = (np.concatenate(p) for p in zip(*parts, strict=True))
    return features.reshape(count, -1), logits.argmax(-1).reshape(count, channels)


def _classify(params: Params, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Every call has one shape, so that one program serves all.
    filled = np.resize(images, (CHUNK, *images.shape[1:]))
    features, logits = _program(params, filled)
    return np.asarray(features)[: len(images)], np.asarray(logits)[: len(images)]


_program = jax.jit(classify)


def in_steps(config: ConfigDict, num_steps: int) -> ConfigDict:
    """Return the config of the same model sampled in another number of steps."""
    copy = from_dict(config.to_dict())
    copy.sampling.num_steps = 0 if num_steps == config.diffusion.num_timesteps else num_steps
    return copy
