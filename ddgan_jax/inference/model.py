"""Hold a trained generator with its config, and draw images with it."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped
from ml_collections import ConfigDict

from ddgan_jax import build, distributed
from ddgan_jax.config import LARGEST, MOST_IMAGES, checks, from_stored, method_title
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files.paths import user_path
from ddgan_jax.inference import arguments, drawing, weights
from ddgan_jax.inference.drawing import Request
from ddgan_jax.inference.drawn import Images
from ddgan_jax.pixels import to_float
from ddgan_jax.sampling import UNVARIED, Trajectory, Variation
from ddgan_jax.state import Params, num_parameters

# Seeds are uint32 on the devices.
LARGEST_SEED = 2**32 - 1

Integers = Sequence[int] | np.ndarray
# Of any numeric type.
GivenImages = Shaped[np.ndarray, "n h w c"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A generator with its config, which draws images on all devices of this process.

    params: arrays on the host with the stored dtype, float32 or bfloat16; computations are in
    float32. step: number of train steps behind them. kind: "ema" or "raw" parameters. about:
    "provenance", "licence" and "metrics", all of which JSON can hold. source: the place that the
    model was read from, for messages.
    """

    config: ConfigDict
    params: Params
    step: int
    kind: str
    about: Mapping[str, Any]
    source: str = ""

    def __repr__(self) -> str:
        """Return three lines: what the model draws, its size, and where it comes from."""
        data, size = self.config.data, self.config.data.image_size
        classes = f", {data.num_classes} classes" if data.num_classes else ""
        steps = f"{self.num_steps} step" + "s" * (self.num_steps != 1)
        return (
            f"{self.method} on {shown(data.name or 'unnamed data')}, {size} x {size} x "
            f"{data.channels}{classes}, in {steps}\n"
            f"{num_parameters(self.params):,} parameters ({self.kind}), {self.step:,} train steps\n"
            f"from {shown(self.source, 300) or 'memory'}"
        )

    def sample(
        self,
        seeds: Integers | int,
        labels: Integers | int | None = None,
        *,
        latent_seed: int | None = None,
        images: GivenImages | None = None,
        start: int = 0,
    ) -> Images:
        """Return the images of the seeds, uint8; of a toy set its points, float32.

        seeds: 0 to 2^32 - 1, one for each image; an integer is a count N, the seeds 0 to N - 1.
        labels: a class for each seed, or one for all; without them seed s has class s modulo the
        number of classes. latent_seed: the seed whose latents z all images get. images: whole
        numbers from 0 to 255 of any type. The chain then begins with them at step `start`, from 0
        to T - 1: the later the step, the less changes. Raises UserError for arguments of another
        type, shape or range, and if the drawn images are not finite.
        """
        request = self.request(seeds, labels)
        variation = UNVARIED
        if latent_seed is not None:
            latent = arguments.integer("latent_seed", latent_seed, LARGEST_SEED)
            latents = np.full(len(request.seeds), latent, np.uint32)
            variation = variation._replace(latent_seeds=latents)
        if images is not None:
            variation = variation._replace(x_0=to_float(arguments.pixels(images)))
        return drawing.concatenate(self.draw(request, variation, start=start)).view(Images)

    def interpolate(self, first: int, last: int, count: int, label: int | None = None) -> Images:
        """Return `count` images between the images of two seeds, both included.

        label: the class of all; without it the class of `first`. Raises UserError as `sample`.
        """
        count = arguments.integer("count", count, MOST_IMAGES, least=1)
        first = arguments.integer("first", first, LARGEST_SEED)
        last = arguments.integer("last", last, LARGEST_SEED)
        if label is not None:
            label = arguments.integer("label", label, self._largest_label("label"))
        between = UNVARIED._replace(
            other_seeds=np.full(count, last, np.uint32),
            weights=np.linspace(0, 1, count, dtype=np.float32),
        )
        # Without a label all images have the class of the first seed, so that only noise changes.
        request = self.request(np.full(count, first, np.uint32), label)
        return drawing.concatenate(self.draw(request, between)).view(Images)

    def trajectory(self, seeds: Integers | int, labels: Integers | int | None = None) -> Trajectory:
        """Return the results and predictions of every step, float32 (N, steps, H, W, C).

        They lie about [-1, 1]. Arguments and errors as in `sample`.
        """
        return drawing.concatenate(self.draw(self.request(seeds, labels), trajectory=True))

    def save(
        self,
        folder: str | os.PathLike,
        *,
        dtype: str = "",
        sampler_weights: str = "",
        grid_seeds: Integers = range(16),
        licence: str = "",
        force: bool = False,
    ) -> None:
        """Write the model as an export, which `ddgan_jax.load` reads; see `export.write`.

        dtype: "f32" or "bf16" for the parameters; "" keeps the stored one. sampler_weights:
        "inside" sampler.stablehlo, its "argument", or "none" for no such file; "" decides by size.
        grid_seeds: of the picture on the model card. licence: of the parameters; "" takes the one
        that the model came with. force: replace an export that is there. Raises UserError for
        another argument, and if `folder` exists or cannot be written.
        """
        # Imported here, since that module imports this one.
        from ddgan_jax.inference import export

        export.write(
            self,
            user_path(arguments.path("folder", folder), "folder"),
            dtype=dtype,
            sampler_weights=sampler_weights,
            grid_seeds=grid_seeds,
            licence=licence,
            force=force,
        )

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        token: str | None = None,
        dtype: str = "",
        sampler_weights: str = "",
        grid_seeds: Integers = range(16),
        licence: str = "",
    ) -> str:
        """Write the model as an export to a repository "user/name" of the Hugging Face hub.

        The repository is made if it is missing, private or public. token: without it the one of
        `hf auth login` or $HF_TOKEN. The other options are those of `save`. Returns the address
        that `ddgan_jax.load` takes. Raises UserError for another argument, without the extra `hub`,
        and if the hub refuses or cannot be reached.
        """
        from ddgan_jax.inference import export

        return export.push(
            self,
            repository,
            private=private,
            token=token,
            dtype=dtype,
            sampler_weights=sampler_weights,
            grid_seeds=grid_seeds,
            licence=licence,
        )

    def draw(
        self,
        request: Request,
        variation: Variation = UNVARIED,
        *,
        start: int = 0,
        trajectory: bool = False,
    ) -> Iterator[Any]:
        """Yield the images, or the trajectories, in chunks; see `drawing.make_drawer`.

        Raises UserError for a model that cannot be drawn from, before or while it draws.
        """
        # These checks come at the call. In a generator they would wait for the first image.
        self.check_drawable()
        start = arguments.integer("start", start, LARGEST)
        if start and variation.x_0 is None:
            raise UserError(f"`start={start}`: only a given image can enter the chain there")
        size, channels = self.config.data.image_size, self.config.data.channels
        wanted = (len(request.seeds), size, size, channels)
        if variation.x_0 is not None and variation.x_0.shape != wanted:
            raise UserError(f"`images` of shape {variation.x_0.shape}, the model wants {wanted}")
        draw = self._drawer(start=start, trajectory=trajectory)
        drawn_by = f"step {self.step}" + (f" of {self.source}" if self.source else "")
        return drawing.checked(
            draw(self._placed, request, variation), drawn_by, self.config.sampling.chunk_size
        )

    def request(self, seeds: Integers | int, labels: Integers | int | None = None) -> Request:
        """Return the request for these images; arguments and errors as in `sample`."""
        checked = arguments.seeds(seeds, LARGEST_SEED)
        if labels is None:
            return drawing.each_class(self.config.data.num_classes, checked)
        largest = self._largest_label("labels")
        if isinstance(labels, int | np.integer):
            label = arguments.integer("labels", labels, largest)
            classes = np.full(len(checked), label)
        else:
            classes = arguments.integers("labels", labels, largest)
        if len(classes) != len(checked):
            raise UserError(f"`labels`: {len(classes)} of them for {len(checked)} seeds")
        return Request(checked.astype(np.uint32), classes.astype(np.int32))

    def _largest_label(self, parameter: str) -> int:
        """Return the largest class. Raises UserError, naming the parameter, if there is none."""
        if not self.config.data.num_classes:
            raise UserError(f"`{parameter}`: this model was trained without classes")
        return self.config.data.num_classes - 1

    @property
    def method(self) -> str:
        """Return the name of the method, for people."""
        return method_title(self.config)

    @property
    def why_not_drawable(self) -> str:
        """Return the reason why no image can be drawn from this model, "" for none."""
        try:
            checks.check_time_embedding(self.config)
        except UserError:
            return (
                "its time embedding is of log(t), which is not defined at t = 0, the time of the "
                "last denoising step"
            )
        return ""

    def check_drawable(self) -> None:
        """Refuse a model from which no image can be drawn. Raises UserError."""
        if why := self.why_not_drawable:
            raise UserError(f"no image can be drawn from this model: {why}")

    def in_steps(self, num_steps: int) -> "Model":
        """Return the same model with another number of denoising steps; 0: the model itself."""
        return self if num_steps == 0 else self.with_sampling(num_steps=num_steps)

    def with_params(self, params: Params) -> "Model":
        """Return the same model with these parameters, on the host."""
        return dataclasses.replace(self, params=params)

    def with_sampling(self, **fields: int) -> "Model":
        """Return the same model with other fields of config.sampling, which must be possible."""
        config = self.config.to_dict()
        config["sampling"].update(fields)
        # `from_stored` checks the changed config as one from a file, so that impossible steps are
        # refused.
        return dataclasses.replace(self, config=from_stored(config))

    @property
    def num_steps(self) -> int:
        """Return the number of denoising steps for an image."""
        return self.config.sampling.num_steps or self.config.diffusion.num_timesteps

    @functools.cached_property
    def sha256(self) -> str:
        """Return the checksum of the parameters and everything else that images depend on."""
        # Two models with this checksum in common draw the same images, and may share a folder.
        digest = hashlib.sha256(weights.to_safetensors(self.params))
        # Images depend on these sections of the config alone, and not on, say, a learning rate.
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
    def _drawer(self) -> Callable[..., drawing.Draw]:
        # Each kind of drawing is compiled once in the life of the model.
        make = functools.partial(
            drawing.make_drawer,
            build.sampler(self.config),
            distributed.local_devices(),
            self.config.sampling.chunk_size,
        )
        return functools.cache(make)
