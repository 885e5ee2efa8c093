"""A trained generator that draws images, wherever it came from: a run folder or an export."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import build, checkpoint, distributed, randomness
from ddgan_jax.config import LARGEST, MOST_IMAGES, checks, from_stored
from ddgan_jax.errors import NotFiniteError, UserError, shown
from ddgan_jax.files.paths import run_folder_path
from ddgan_jax.files.run_folder import METRICS, SPEED, RunFolder
from ddgan_jax.images import to_float
from ddgan_jax.inference import drawing, weights
from ddgan_jax.inference.drawing import Request
from ddgan_jax.sampling import UNVARIED, Trajectory, Variation
from ddgan_jax.state import Params

_LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A generator and what it is; images are drawn on all devices of this process.

    params: on the host as they were stored, float32 or bfloat16; computed with as float32. step:
    train steps behind them. kind: "ema" or "raw" parameters. about: "provenance", "licence" and
    "metrics", what JSON can hold. source: where it was read from, for messages.
    """

    config: ConfigDict
    params: Params
    step: int
    kind: str
    about: Mapping[str, Any]
    source: str = ""

    def sample(
        self,
        seeds: Sequence[int],
        labels: Sequence[int] | int | None = None,
        *,
        latent_seed: int | None = None,
        images: np.ndarray | None = None,
        start: int = 0,
    ) -> np.ndarray:
        """Return the images of the seeds, uint8 (N, H, W, C); float32 points of the toy sets.

        seeds: 0 to 2^32 - 1. labels: a class for each seed, one for all, or None: they take turns.
        latent_seed: all images get the z of this seed. images: (N, H, W, C), whole numbers from 0
        to 255 of any type, from which the chain begins at step `start`, 0 to T - 1: the later, the
        less of them changes. Raises UserError for arguments of another type, shape or range, and if
        the images are not finite.
        """
        request = self.request(seeds, labels)
        variation = UNVARIED
        if latent_seed is not None:
            (latent,) = _integers("latent_seed", [latent_seed], _LARGEST_SEED)
            latents = np.full(len(request.seeds), latent, np.uint32)
            variation = variation._replace(latent_seeds=latents)
        if images is not None:
            variation = variation._replace(x_0=to_float(_pixels(images)))
        return drawing.concatenate(self.draw(request, variation, start=start))

    def interpolate(
        self, first: int, last: int, count: int, label: int | None = None
    ) -> np.ndarray:
        """Return `count` images, uint8, from that of seed `first` to that of `last`, both included.

        label: of all of them; None: that of the first seed. Raises UserError as `sample`.
        """
        (count,) = _integers("count", [count], MOST_IMAGES, least=1)
        seeds = _integers("first and last", [first, last], _LARGEST_SEED)
        between = Variation(
            other_seeds=np.full(count, seeds[1], np.uint32),
            weights=np.linspace(0, 1, count, dtype=np.float32),
        )
        request = self.request(np.full(count, seeds[0], np.uint32), label)
        return drawing.concatenate(self.draw(request, between))

    def trajectory(
        self, seeds: Sequence[int], labels: Sequence[int] | int | None = None
    ) -> Trajectory:
        """Return what every step arrives at and predicts, float32 (N, steps, H, W, C).

        It lies about [-1, 1]. Raises UserError as `sample`.
        """
        return drawing.concatenate(self.draw(self.request(seeds, labels), trajectory=True))

    def draw(
        self,
        request: Request,
        variation: Variation = UNVARIED,
        *,
        start: int = 0,
        trajectory: bool = False,
    ) -> Iterator[Any]:
        """Return the images, or the trajectories, in chunks; see `drawing.make_drawer`.

        Raises UserError for a model that cannot be drawn from, also while they are drawn.
        """
        self.check_drawable()
        (start,) = _integers("start", [start], LARGEST)
        if start and variation.x_0 is None:
            raise UserError(f"start={start}: only a given image can enter the chain there")
        size, channels = self.config.data.image_size, self.config.data.channels
        wanted = (len(request.seeds), size, size, channels)
        if variation.x_0 is not None and variation.x_0.shape != wanted:
            raise UserError(f"images of shape {variation.x_0.shape}, the model wants {wanted}")
        draw = self._drawer(start=int(start), trajectory=trajectory)
        return self._checked(draw(self._placed, request, variation))

    def _checked(self, chunks: Iterable[Any]) -> Iterator[Any]:
        """Yield the chunks. Raises UserError for numbers that are not finite, or too many."""
        try:
            for chunk in chunks:
                for array in jax.tree.leaves(chunk):
                    if array.dtype != np.uint8 and not np.isfinite(array).all():
                        raise NotFiniteError("the images hold numbers that are not finite")
                yield chunk
        except NotFiniteError as error:
            where = f" of {self.source}" if self.source else ""
            raise NotFiniteError(
                f"step {self.step}{where} draws images that are not finite: take an earlier "
                "checkpoint, with step"
            ) from error
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"drawing {self.config.sampling.chunk_size:,} images at a time takes more memory "
                "than there is: sampling.chunk_size of the model's config says how many"
            ) from error

    def request(self, seeds: Sequence[int], labels: Sequence[int] | int | None = None) -> Request:
        """Return the request for these images; arguments and errors as in `sample`."""
        seeds = _integers("seeds", seeds, _LARGEST_SEED)
        if labels is None:
            return drawing.each_class(self.config.data.num_classes, seeds)
        classes = self.config.data.num_classes
        if not classes:
            raise UserError("labels: this model was trained without classes")
        if isinstance(labels, int | np.integer):
            labels = np.repeat(_integers("labels", [labels], classes - 1), len(seeds))
        labels = _integers("labels", labels, classes - 1)
        if len(labels) != len(seeds):
            raise UserError(f"labels: {len(labels)} of them for {len(seeds)} seeds")
        return Request(seeds.astype(np.uint32), labels.astype(np.int32))

    @property
    def why_not_drawable(self) -> str:
        """Return why no image can be drawn from this model; "" where they can."""
        try:
            checks.check_time_embedding(self.config)
        except UserError:
            return (
                "its time embedding is of log(t), which is not defined at t = 0, the time of the "
                "last denoising step"
            )
        return ""

    def check_drawable(self) -> None:
        """Refuse, with a UserError, a model from which no image can be drawn."""
        if why := self.why_not_drawable:
            raise UserError(f"no image can be drawn from this model: {why}")

    def in_steps(self, num_steps: int) -> "Model":
        """Return the same model with another number of denoising steps; 0: the model itself."""
        return self if num_steps == 0 else self.with_sampling(num_steps=num_steps)

    def with_params(self, params: Params) -> "Model":
        """The same model with these parameters, on the host."""
        return dataclasses.replace(self, params=params)

    def with_sampling(self, **fields: int) -> "Model":
        """Return the same model with other fields of config.sampling, which must be possible."""
        config = self.config.to_dict()
        config["sampling"].update(fields)
        return dataclasses.replace(self, config=from_stored(config))

    @property
    def num_steps(self) -> int:
        """Denoising steps for an image."""
        return self.config.sampling.num_steps or self.config.diffusion.num_timesteps

    @functools.cached_property
    def sha256(self) -> str:
        """Of the parameters and everything else that images depend on."""
        digest = hashlib.sha256(weights.to_safetensors(self.params))
        parts = {k: self.config[k].to_dict() for k in ("data", "diffusion", "generator")}
        fields = json.dumps([parts, self.config.objective.prediction], sort_keys=True)
        digest.update(f"{fields} {self.num_steps}".encode())
        return digest.hexdigest()

    @functools.cached_property
    def _placed(self) -> Params:
        return jax.device_put(
            weights.cast(self.params, "float32"),
            distributed.replicated(distributed.local_devices()),
        )

    @functools.cached_property
    def _drawer(self) -> Callable[..., Callable[..., Iterator[Any]]]:
        # Each is compiled once in the life of the model.
        make = functools.partial(
            drawing.make_drawer,
            build.sampler(self.config),
            distributed.local_devices(),
            self.config.sampling.chunk_size,
        )
        return functools.cache(make)


def from_run(
    workdir: str | os.PathLike,
    step: int | None = None,
    *,
    kind: str = "ema",
    report: Callable[[str], None],
) -> Model:
    """The model of a run folder at `step`, by default that of the newest whole checkpoint.

    kind: "ema" or "raw" parameters. Changes nothing on disk; damaged newer checkpoints are skipped
    with one line each to `report`. Raises UserError if there is no checkpoint to read.
    """
    # Reading needs a device, for lack of which a whole checkpoint would look damaged.
    distributed.local_devices()
    workdir = run_folder_path(workdir)
    directory = RunFolder(workdir).checkpoints
    step, tree, params = checkpoint.load_ema(directory, step, report=report)
    config = from_stored(tree)
    if kind == "raw":
        params = _raw_params(config, directory, step)
    about = _about_run(RunFolder(workdir), step, report=report)
    return Model(config, jax.device_get(params), step, kind, about, source=shown(workdir, 300))


@randomness.reproducible()
def _raw_params(config: ConfigDict, directory: epath.Path, step: int) -> Params:
    key = randomness.run_key(config.train.seed)
    like = jax.eval_shape(functools.partial(build.initial_state, config, key))
    return checkpoint.load_state(directory, like, step).generator.params


def _about_run(run: RunFolder, step: int, *, report: Callable[[str], None]) -> dict[str, Any]:
    """Return what the run folder tells of a model beside its parameters."""
    origin = run.read_origin(report=report)
    provenance = {"trained_with": "ddgan train"}
    if origin.provenance:
        provenance["continued_from"] = origin.provenance
    line = run.metrics_at(step, report=report)
    metrics = {}
    if line:
        metrics = {"source": f"{METRICS} of the run", "step": line.step, **line.metrics}
        metrics.pop(SPEED, None)  # of the machine, not of the model
    return {"provenance": provenance, "licence": origin.licence, "metrics": metrics}


def _integers(name: str, values: Any, most: int, least: int = 0) -> np.ndarray:
    """Return an argument's integers, one or more, as int64 (N,).

    Raises UserError, naming the argument, for anything but a sequence of integers in that range.
    """
    try:
        count = len(values)
        if count > MOST_IMAGES:
            raise UserError(f"{name}: {count:,} of them; at most {MOST_IMAGES:,} are possible")
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{name}: {shown(repr(values))} is no sequence of integers") from error
    if array.dtype.kind == "O" and all(type(value) is int for value in array.flat):
        array = np.clip(array, least - 1, most + 1).astype(np.int64)  # beyond 64 bits
    if array.dtype.kind not in "iu" or array.ndim != 1 or not count:
        raise UserError(f"{name}: {shown(repr(values))} is no list of integers")
    for value in (array.min(), array.max()):
        if not least <= value <= most:
            raise UserError(f"{name}: {value} does not lie between {least} and {most}")
    return array.astype(np.int64)


def _pixels(images: Any) -> np.ndarray:
    """Return given images as an array. Raises UserError for other than numbers from 0 to 255."""
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise UserError("images are no array") from error
    if array.dtype.kind not in "uif":
        raise UserError(f"images are {array.dtype}: give uint8, 0 to 255")
    if not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise UserError("images are not whole numbers from 0 to 255, such as uint8 holds")
    return array
