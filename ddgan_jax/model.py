"""A trained generator that draws images, wherever it came from: a run folder or an export."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import checkpoint, parallel, randomness, run_logs, sampling, train_step, weights
from ddgan_jax.config import from_stored
from ddgan_jax.errors import UserError
from ddgan_jax.sampling import UNVARIED, Request, Trajectory, Variation
from ddgan_jax.types import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A generator and what it is; images are drawn on all devices of this process.

    params: on the host as they were stored, float32 or bfloat16; computed with as float32. step:
    train steps behind them. kind: "ema" or "raw" parameters. about: "provenance", "licence" and
    "metrics", what JSON can hold.
    """

    config: ConfigDict
    params: Params
    step: int
    kind: str
    about: Mapping[str, Any]

    def sample(
        self,
        seeds: Sequence[int],
        labels: Sequence[int] | int | None = None,
        *,
        latent_seed: int | None = None,
        images: np.ndarray | None = None,
        start: int = 0,
    ) -> np.ndarray:
        """Images of the seeds, uint8 (N, H, W, C); float32 points of the toy sets.

        labels: a class for each seed, one for all, or None: they take turns. latent_seed: all
        images get the z of this seed. images: uint8 (N, H, W, C) from which the chain begins at
        step `start`, 0 to T - 1: the later, the less of them changes. Raises UserError for labels
        and starts that the model does not know.
        """
        request = self.request(seeds, labels)
        variation = UNVARIED
        if latent_seed is not None:
            variation = variation._replace(latent_seeds=np.full(len(seeds), latent_seed, np.uint32))
        if images is not None:
            x_0 = np.asarray(images, np.float32) / np.float32(127.5) - 1
            variation = variation._replace(x_0=x_0)
        return sampling.concatenate(self.draw(request, variation, start=start))

    def interpolate(
        self, first: int, last: int, count: int, label: int | None = None
    ) -> np.ndarray:
        """`count` images, uint8, from that of seed `first` to that of seed `last`, both included.

        label: of all of them; None: that of the first seed.
        """
        between = Variation(
            other_seeds=np.full(count, last, np.uint32),
            weights=np.linspace(0, 1, count, dtype=np.float32),
        )
        request = self.request([first] * count, label)
        return sampling.concatenate(self.draw(request, between))

    def trajectory(
        self, seeds: Sequence[int], labels: Sequence[int] | int | None = None
    ) -> Trajectory:
        """What every step arrives at and predicts, float32 (N, steps, H, W, C), about [-1, 1]."""
        return sampling.concatenate(self.draw(self.request(seeds, labels), trajectory=True))

    def draw(
        self,
        request: Request,
        variation: Variation = UNVARIED,
        *,
        start: int = 0,
        trajectory: bool = False,
    ) -> Iterator[Any]:
        """The images, or the trajectories, in chunks; see `sampling.make_drawer`."""
        if start and variation.x_0 is None:
            raise UserError(f"start={start}: only a given image can enter the chain there")
        size, channels = self.config.data.image_size, self.config.data.channels
        wanted = (len(request.seeds), size, size, channels)
        if variation.x_0 is not None and variation.x_0.shape != wanted:
            raise UserError(f"images of shape {variation.x_0.shape}, the model wants {wanted}")
        return self._drawer(start=start, trajectory=trajectory)(self._placed, request, variation)

    def request(self, seeds: Sequence[int], labels: Sequence[int] | int | None = None) -> Request:
        """The request for these images; labels as in `sample`."""
        turns = sampling.each_class(self.config, seeds)
        if labels is None:
            return turns
        labels = np.broadcast_to(np.asarray(labels, np.int32), turns.seeds.shape)
        # Refuses what the model does not know.
        sampling.each_class(self.config, [0], np.unique(labels).tolist())
        return Request(turns.seeds, labels)

    def in_steps(self, num_steps: int) -> "Model":
        """The same model with another number of denoising steps; 0: the model itself."""
        return self.with_sampling(num_steps=num_steps) if num_steps else self

    def with_params(self, params: Params) -> "Model":
        """The same model with these parameters, on the host."""
        return dataclasses.replace(self, params=params)

    def with_sampling(self, **fields: int) -> "Model":
        """The same model with other fields of config.sampling."""
        config = from_stored(self.config.to_dict())
        config.sampling.update(fields)
        return dataclasses.replace(self, config=config)

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
            weights.cast(self.params, "float32"), parallel.replicated(parallel.local_devices())
        )

    @functools.cached_property
    def _drawer(self) -> Callable[..., Callable[..., Iterator[Any]]]:
        # Each is compiled once in the life of the model.
        make = functools.partial(sampling.make_drawer, self.config, parallel.local_devices())
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
    parallel.local_devices()
    directory = epath.Path(workdir) / "checkpoints"
    step, tree, params = checkpoint.load_ema(directory, step, report=report)
    config = from_stored(tree)
    if kind == "raw":
        params = _raw_params(config, directory, step)
    about = _about_run(epath.Path(workdir), step, report=report)
    return Model(config, jax.device_get(params), step, kind, about)


@randomness.reproducible()
def _raw_params(config: ConfigDict, directory: epath.Path, step: int) -> Params:
    key = randomness.run_key(config.train.seed)
    like = jax.eval_shape(functools.partial(train_step.init_state, config, key))
    return checkpoint.load_state(directory, like, step).generator.params


def _about_run(workdir: epath.Path, step: int, *, report: Callable[[str], None]) -> dict[str, Any]:
    """Return what the run folder tells of a model beside its parameters."""
    origin = run_logs.read_origin(workdir, report=report)
    provenance = {"trained_with": "ddgan train"}
    if origin.provenance:
        provenance["continued_from"] = origin.provenance
    line = run_logs.metrics_at(workdir, step, report=report)
    metrics = {}
    if line:
        metrics = {"source": "metrics.jsonl of the run", "step": line.step, **line.metrics}
        metrics.pop(run_logs.SPEED, None)  # of the machine, not of the model
    return {"provenance": provenance, "licence": origin.licence, "metrics": metrics}
