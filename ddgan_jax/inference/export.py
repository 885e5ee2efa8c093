"""Write exports: folders with a generator that outlive this program.

    model.safetensors   the parameters, by name
    config.json         the config, method, step, data set, metrics, provenance and licence, the
                        format's version, and the checksum of every file
    sampler.stablehlo   the sampler, from seeds to uint8 images, unless told otherwise: `stablehlo`
    README.md           a model card, with samples.png

The first two files are data, and `export_format` reads them whoever wrote them. The third is a
program, which is written here and never run. A folder appears whole or not at all.
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

import ddgan_jax
from ddgan_jax import images, progress, randomness
from ddgan_jax.config import empty_local_paths, has_points
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import locks
from ddgan_jax.files.atomic import whole_folder
from ddgan_jax.files.paths import user_path
from ddgan_jax.inference import arguments, hub, model_card, stablehlo, weights
from ddgan_jax.inference.export_format import (
    FORMAT,
    FORMAT_VERSION,
    LONGEST_TEXT,
    config_sha256,
    is_export,
    own_files,
    read,
    sha256,
)
from ddgan_jax.inference.model import LARGEST_SEED, Model
from ddgan_jax.models import parameters
from ddgan_jax.state import num_parameters

# Bytes of parameters that the sampler holds unless told otherwise.
LARGEST_INSIDE = 64 * 2**20
SAMPLER_WEIGHTS = ("inside", "argument", "none")
# Images of the picture on a model card.
MOST_ON_CARD = 10_000


def write(
    model: Model,
    out: str | os.PathLike,
    *,
    dtype: str = "",
    sampler_weights: str = "",
    grid_seeds: Sequence[int] | np.ndarray = range(16),
    licence: str = "",
    force: bool = False,
) -> None:
    """Write the export of a model to the folder `out`, which appears whole or not at all.

    dtype: "f32" or "bf16"; "" keeps the stored dtype. sampler_weights: whether the parameters are
    "inside" sampler.stablehlo or its "argument"; "" puts up to LARGEST_INSIDE bytes inside; "none"
    writes no sampler. grid_seeds: the seeds of samples.png, at most MOST_ON_CARD. licence: of the
    parameters; "" takes the licence that the model came with. force: replace an export at `out`
    that has no files but its own. A
    model from which no image can be drawn, see `Model.why_not_drawable`, gets neither a sampler nor
    a picture. Raises UserError for another argument, and if `out` exists or cannot be written;
    BusyError if another process is writing it.
    """
    out = user_path(arguments.path("out", out), "out")
    force = arguments.switch("force", force)
    _check_options(dtype, sampler_weights, grid_seeds, licence)
    remedy = "name another folder, or use `force`"
    with (
        locks.only_writer(out),
        whole_folder(out, replace=_may_be_replaced if force else None, remedy=remedy) as folder,
    ):
        fill(
            model,
            folder,
            dtype=dtype,
            sampler_weights=sampler_weights,
            grid_seeds=grid_seeds,
            licence=licence,
        )


def _may_be_replaced(folder: epath.Path) -> bool:
    """Return whether the folder is an export. Raises UserError if it has files of somebody else."""
    if not is_export(folder):
        return False
    others = sorted({file.name for file in folder.iterdir()} - own_files(folder))
    if others:
        raise UserError(
            f"{shown(folder, 300)} has files that are not of its export and would be lost: "
            f"{shown(', '.join(others), 300)}: move them, or name another folder"
        )
    return True


def push(
    model: Model,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    dtype: str = "",
    sampler_weights: str = "",
    grid_seeds: Sequence[int] | np.ndarray = range(16),
    licence: str = "",
) -> str:
    """Write the export of a model to a repository of the hub, and return its address.

    repository: "user/name" or "hf://user/name"; it is made if it is missing, private or public.
    token: None for the one that the hub's client knows. The other arguments are those of `write`.
    Raises UserError for another argument, if the hub refuses, and if it cannot be reached.
    """
    name = hub.repository(arguments.text("repository", repository, LONGEST_TEXT), "repository")
    private = arguments.switch("private", private)
    token = None if token is None else arguments.text("token", token, LONGEST_TEXT)
    _check_options(dtype, sampler_weights, grid_seeds, licence)
    # What the hub refuses shows before anything is drawn.
    hub.make(name, private=private, token=token)
    with tempfile.TemporaryDirectory(prefix="ddgan-") as folder:
        fill(
            model,
            epath.Path(folder),
            dtype=dtype,
            sampler_weights=sampler_weights,
            grid_seeds=grid_seeds,
            licence=licence,
        )
        return hub.push(folder, name, token=token)


def _check_options(dtype: Any, sampler_weights: Any, grid_seeds: Any, licence: Any) -> None:
    if arguments.text("dtype", dtype, LONGEST_TEXT):
        weights.dtype_name(dtype)
    arguments.choice("sampler_weights", sampler_weights, ("", *SAMPLER_WEIGHTS))
    seeds = arguments.integers("grid_seeds", grid_seeds, LARGEST_SEED)
    if len(seeds) > MOST_ON_CARD:
        raise UserError(f"`grid_seeds`: {len(seeds):,} of them; at most {MOST_ON_CARD:,}")
    arguments.text("licence", licence, LONGEST_TEXT)


def fill(
    model: Model,
    folder: epath.Path,
    *,
    dtype: str = "",
    sampler_weights: str = "",
    grid_seeds: Sequence[int] | np.ndarray = range(16),
    licence: str = "",
) -> None:
    """Write the files of an export into an empty folder, and read them again; see `write`."""
    # The pictures are drawn with the rounded parameters, since those are what others will load.
    stored = weights.dtype_of(model.params)
    dtype = weights.dtype_name(dtype) if dtype else stored
    rounded = model.with_params(weights.cast(model.params, dtype))
    about = _about(rounded)
    about["licence"] = _plain(licence or model.about["licence"] or model_card.UNKNOWN_LICENCE)
    # The parameters are written in the rounded dtype, as those of which the pictures are drawn.
    (folder / "model.safetensors").write_bytes(weights.to_safetensors(rounded.params))
    if rounded.why_not_drawable:
        about["not_drawable"] = rounded.why_not_drawable
    else:
        with progress.phase("compiling the sampler for a picture"):
            drawn = _draw_few(rounded, grid_seeds)
        images.write_png(folder / "samples.png", images.picture(drawn))
        if sampler_weights != "none":
            with progress.phase("writing the sampler"):
                about["sampler"] = _write_sampler(rounded, folder, sampler_weights)
        if dtype != stored:
            about["rounding"] = _difference(drawn, _draw_few(model, grid_seeds))
    # An export of an export keeps the note of the rounding that its parameters have been through.
    if "rounding" in model.about and "rounding" not in about:
        about["rounding"] = model.about["rounding"]
    _write_about(folder, about, rounded.config.to_dict(), grid_seeds)
    # Reading finds what a full or failing disk has lost, while the folder can still be given up.
    read(folder)


# ------------------------------------------------------------------------------------ contents


def _about(model: Model) -> dict[str, Any]:
    config = model.config
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "method": model.method,
        "data": {
            "name": config.data.name,
            "image_size": config.data.image_size,
            "channels": config.data.channels,
            "num_classes": config.data.num_classes,
        },
        "step": model.step,
        "weights": model.kind,
        "dtype": weights.dtype_of(model.params),
        "parameters": num_parameters(model.params),
        "denoising_steps": model.num_steps,
        "provenance": _plain(model.about["provenance"]),
        "metrics": _plain(model.about["metrics"]),
        "randomness": randomness.about(),
        "written_by": {"ddgan_jax": ddgan_jax.__version__, "jax": jax.__version__},
    }


def _write_sampler(model: Model, folder: epath.Path, sampler_weights: str) -> dict[str, Any]:
    """Write sampler.stablehlo and return a description of its arguments and result."""
    config = model.config
    size, channels = config.data.image_size, config.data.channels
    num_bytes = sum(array.nbytes for array in parameters.named(model.params).values())
    inside = sampler_weights == "inside" or (not sampler_weights and num_bytes <= LARGEST_INSIDE)
    program = stablehlo.export_sampler(config, model.params, inside=inside)
    (folder / "sampler.stablehlo").write_bytes(program)
    arguments = ["seeds: uint32 (N,)"] + ["labels: int32 (N,)"] * (config.data.num_classes > 0)
    kind = "float32" if has_points(config) else "uint8"
    return {
        "arguments": arguments if inside else ["arrays of model.safetensors", *arguments],
        "result": f"{kind} (N, {size}, {size}, {channels})",
        "images_at_a_time": config.sampling.chunk_size,
        "platforms": list(stablehlo.PLATFORMS),
    }


def _write_about(
    folder: epath.Path,
    about: dict[str, Any],
    config: dict[str, Any],
    grid_seeds: Sequence[int] | np.ndarray,
) -> None:
    # Names of folders on the machine of the training are nobody else's business.
    empty_local_paths(config)
    # README.md has no checksum, since people edit it, and config.json is what holds the checksums.
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    about["sha256"] = {file.name: sha256(file.read_bytes()) for file in files}
    about["sha256"]["config"] = config_sha256(config)
    (folder / "config.json").write_bytes(_to_json(about | {"config": config}))
    (folder / "README.md").write_text(model_card.render(about, grid_seeds), encoding="utf-8")


def _draw_few(model: Model, seeds: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the images of a few seeds, without drawing more to fill a chunk."""
    size = min(model.config.sampling.chunk_size, len(seeds))
    return model.with_sampling(chunk_size=size).sample(seeds)


def _difference(rounded: np.ndarray, stored: np.ndarray) -> dict[str, Any]:
    """Return how far the images of the rounded parameters are from those of the stored ones."""
    # The difference of two uint8 arrays would wrap around below 0.
    difference = np.abs(rounded.astype(np.float64) - stored)
    return {
        "images": len(difference),
        "mean_difference": round(float(difference.mean()), 4),
        "largest_difference": float(difference.max()),
        "unit": "levels of 0 to 255" if stored.dtype == np.uint8 else "coordinates",
    }


def _plain(value: Any) -> Any:
    """Return nested values with every text in them in one line, printable, and not too long."""
    if isinstance(value, Mapping):
        return {shown(name, LONGEST_TEXT): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    # JSON has no NaN and no infinity: such a metric is written as text.
    if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
        return shown(value, LONGEST_TEXT)
    return value


def _to_json(about: Mapping[str, Any]) -> bytes:
    return (json.dumps(about, indent=2, allow_nan=False) + "\n").encode()
