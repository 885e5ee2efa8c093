"""Open the images that are scored: samples of a model, or images that somebody gives."""

import dataclasses
import functools
import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax import distributed
from ddgan_jax.config import has_points
from ddgan_jax.config.files import from_dict
from ddgan_jax.data.selection import chosen_split
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import given, reference
from ddgan_jax.evaluation.gather import Images
from ddgan_jax.files.paths import is_bucket, run_folder_path, user_path
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import drawing, weights
from ddgan_jax.inference.model import Model

# The bounds of a measurement: a slow model is timed in few calls, a fast one in several.
SECONDS_OF_TIMING = 10.0
MOST_TIMED_CALLS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images to be scored.

    Attributes:
      name: A description of the images, in words.
      count: Number of images.
      shape: Height, width and channels.
      place: Default place of results: a folder and the first part of a file's name.
      read: Yields the images in chunks.
      data: A config of the real images, None if the user has not named their set.
      model: The part of the result about the model.
      sampling: Measures the part of the result about the speed of sampling, None if nothing is
        sampled.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    place: Path
    read: Callable[[], Iterator[Images]]
    data: ConfigDict | None
    model: Mapping[str, Any]
    sampling: Callable[[], Mapping[str, Any] | None]


def samples_of(
    model: Model,
    folder: str,
    count: int,
    *,
    is_run: bool,
    dataset: str = "",
    split: str = "",
    data_dir: str = "",
) -> Source:
    """Return the images of the seeds 0 to count - 1 of a model; classes take turns.

    folder: Where the model comes from. is_run: Whether it is a run folder, which holds results.
    dataset, split, data_dir: The set of real images; "" takes the set of the training. Raises
    UserError for a model of points.
    """
    if has_points(model.config):
        raise UserError("this model draws points: `ddgan experiment` scores those")
    # The copy is changed to name the real images; the model's own config stays.
    config = from_dict(model.config.to_dict())
    # Another set has splits and examples of its own.
    if dataset:
        config.data.update(name=dataset, path="", split="train", max_examples=0, holdout=0.0)
    config.data.split = chosen_split(split, config.data.split)
    config.data.dir = data_dir or config.data.dir
    size = config.data.image_size
    # Results of an export have no run folder to lie in, nor have those of a run in a bucket.
    local = is_run and not is_bucket(folder)
    run = RunFolder.at(run_folder_path(folder) if local else "")
    return Source(
        name=f"samples of {folder}, step {model.step} ({model.kind})",
        count=count,
        shape=(size, size, config.data.channels),
        place=Path(run.evaluations) / f"step_{model.step}_in_{model.num_steps}",
        # Images are drawn when they are read, and never all in memory.
        read=lambda: model.draw(model.request(range(count))),
        data=config,
        # The checksum says which parameters these were after the folder has gone or changed.
        model={
            "folder": folder,
            "step": model.step,
            "weights": model.kind,
            "sha256": hashlib.sha256(weights.to_safetensors(model.params)).hexdigest(),
        },
        sampling=functools.partial(time_sampling, model),
    )


def images_of(
    path: str, count: int = 0, *, dataset: str = "", split: str = "", data_dir: str = ""
) -> Source:
    """Return images from a file or a folder of the user, the first `count` of them or all.

    path: See `given.open_images`. dataset, split, data_dir: Of the real images, which are brought
    to the same size. Raises UserError for whatever cannot be scored.
    """
    images = given.open_images(path)
    count = min(images.count, count or images.count)
    config = None
    if dataset:
        # The real images are brought to the size of the given ones, and not the other way round,
        # since resizing would change what is scored.
        size, _, channels = images.shape
        config = reference.data_config(
            dataset,
            split=chosen_split(split, "train"),
            data_dir=data_dir,
            image_size=size,
            channels=channels,
        )
    return Source(
        name=f"images of {path}",
        count=count,
        shape=images.shape,
        place=Path(RunFolder.at("").evaluations) / _name_of(path),
        read=functools.partial(_first, images, count),
        data=config,
        model={"images": path},
        sampling=lambda: None,
    )


def _first(images: given.Given, count: int) -> Iterator[Images]:
    left = count
    for chunk in images.read():
        yield chunk[:left]
        left -= len(chunk[:left])
        if not left:
            return


def _name_of(path: str) -> str:
    """Return what results of images at a path are called: a folder's whole name, a file's stem."""
    place = Path(os.path.abspath(user_path(path, "images")))
    is_array = place.suffix in (".npy", ".npz") and not place.is_dir()
    return (place.stem if is_array else place.name) or "images"


def time_sampling(model: Model) -> dict[str, Any]:
    """Measure the seconds for 100 images, from seeds to uint8 on the host; a median of calls.

    A call draws as many images as the compiled sampler takes at a time. The first call compiles
    and does not count; at most MOST_TIMED_CALLS or SECONDS_OF_TIMING are spent on the others.
    """
    # Whole calls of the compiled sampler: a part of one would take as long as all of it.
    devices = distributed.local_devices()
    batch = model.config.sampling.chunk_size * len(devices)
    request = model.request(range(batch))
    seconds: list[float] = []
    for number in range(MOST_TIMED_CALLS + 1):
        start = time.perf_counter()
        # JAX returns before the devices have finished: the last image on the host ends a call.
        drawing.concatenate(model.draw(request))
        if number:
            seconds.append(time.perf_counter() - start)
        if sum(seconds) > SECONDS_OF_TIMING:
            break
    return {
        "denoising_steps": model.num_steps,
        "network_evaluations_per_image": model.num_steps,
        # The median leaves out a call that other work on the machine has slowed down.
        "seconds_per_100_images": statistics.median(seconds) * 100 / batch,
        "images_per_call": batch,
        "timed_calls": len(seconds),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "compute_dtype": model.config.train.compute_dtype,
        "matmul_precision": model.config.train.matmul_precision,
    }
