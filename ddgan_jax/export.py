"""Exports: a generator as a folder that outlives this program, and reading it again.

    model.safetensors   the parameters, by name
    config.json         what they are: config, method, step, data set, metrics, provenance, licence,
                        the format's version, and the checksum of every file
    sampler.stablehlo   the sampler, from seeds to uint8 images: see `stablehlo`
    flatbuffers.zip     the pure Python package with which JAX reads it, and does not bring
    README.md           a model card, with samples.png

numpy reads the first two, JAX alone the third. A folder appears whole or not at all.
"""

import contextlib
import hashlib
import importlib.resources
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

import ddgan_jax
from ddgan_jax import images, mixture, model_card, models, randomness, show, stablehlo, weights
from ddgan_jax.config import from_stored
from ddgan_jax.errors import UserError
from ddgan_jax.files.atomic import whole_folder
from ddgan_jax.model import Model, from_run

FORMAT = "ddgan_jax export"
FORMAT_VERSION = 1
LARGEST_INSIDE = 64 * 2**20  # bytes of parameters that the sampler holds unless told otherwise
HUB = "hf://"
UNKNOWN_LICENCE = "not stated"
ABOUT = ("provenance", "licence", "metrics")  # of Model.about, carried from export to export


def write(
    model: Model,
    out: str | os.PathLike,
    *,
    dtype: str = "",
    sampler_weights: str = "",
    grid_seeds: Sequence[int] = range(16),
    licence: str = "",
    force: bool = False,
) -> None:
    """Writes the export of a model to the folder `out`, which appears whole or not at all.

    dtype: "float32" or "bfloat16", "" as they are stored. sampler_weights: "inside" or "argument"
    of sampler.stablehlo, "" inside up to LARGEST_INSIDE bytes. grid_seeds: of samples.png. licence:
    of the parameters, "" as the model says. force: replaces an export at `out`.
    Raises UserError if `out` exists, or cannot be written.
    """
    if sampler_weights not in ("", "inside", "argument"):
        raise UserError(f"--sampler_weights={sampler_weights} is neither inside nor argument")
    with whole_folder(out, replace=is_export if force else None) as folder:
        stored = weights.dtype_of(model.params)
        rounded = model.with_params(weights.cast(model.params, dtype or stored))
        content = weights.to_safetensors(rounded.params)
        fits = len(content) <= LARGEST_INSIDE
        inside = sampler_weights == "inside" or (not sampler_weights and fits)
        drawn = _draw_few(rounded, grid_seeds)

        (folder / "model.safetensors").write_bytes(content)
        program = stablehlo.export_sampler(rounded.config, rounded.params, inside=inside)
        (folder / "sampler.stablehlo").write_bytes(program)
        (folder / "flatbuffers.zip").write_bytes(_package("flatbuffers"))
        images.write_png(folder / "samples.png", images.picture(drawn))

        about = _about(rounded, inside)
        about["licence"] = licence or model.about["licence"] or UNKNOWN_LICENCE
        if dtype not in ("", stored):
            about["rounding"] = _difference(drawn, _draw_few(model, grid_seeds))
        elif "rounding" in model.about:
            about["rounding"] = model.about["rounding"]
        config = rounded.config.to_dict()
        for local in ("dir", "path"):  # where somebody's images lie is nobody else's business
            config["data"][local] = ""
        files = sorted(folder.iterdir(), key=lambda file: file.name)
        about["sha256"] = {file.name: _sha256(file.read_bytes()) for file in files}
        about["sha256"]["config"] = _config_sha256(config)
        (folder / "config.json").write_bytes(_to_json(about | {"config": config}))
        (folder / "README.md").write_text(model_card.render(about, grid_seeds))


def read(folder: str | os.PathLike) -> Model:
    """The model of an export. Raises UserError, naming what is wrong, for anything but a whole one.

    Every file is checked against its checksum, whether or not it is needed.
    """
    folder = epath.Path(folder)
    about = _read_about(folder)
    content = b""
    for name, expected in about["sha256"].items():
        if name == "config":
            whole = _config_sha256(about["config"]) == expected
            name = 'config.json, the part "config",'
        else:
            found = _read_file(folder, name)
            content = found if name == "model.safetensors" else content
            whole = _sha256(found) == expected
        if not whole:
            raise UserError(f"{folder}: {name} is damaged, it does not match its checksum")
    config = from_stored(about["config"])
    params = weights.from_safetensors(content, str(folder / "model.safetensors"))
    template = models.abstract_params(config)[0]
    weights.check_shapes(params, template, str(folder))
    kept = {key: about[key] for key in (*ABOUT, "rounding") if key in about}
    return Model(config, params, about["step"], about["weights"], kept)


def load(path: str | os.PathLike, *, num_steps: int = 0) -> Model:
    """The model of an export, of a run folder, or of "hf://user/repo" or "hf://user/repo@revision".

    num_steps: denoising steps, 0: those of the config. Raises UserError if there is none to read.
    """
    text = os.fspath(path)
    folder = _fetch(text.removeprefix(HUB)) if text.startswith(HUB) else epath.Path(text)
    is_run = (folder / "checkpoints").exists()
    return (from_run(folder, report=print) if is_run else read(folder)).in_steps(num_steps)


def is_export(folder: epath.Path) -> bool:
    """Whether the folder is an export, of whatever version and whether or not it is whole."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads((folder / "config.json").read_text()).get("format") == FORMAT
    return False


# ------------------------------------------------------------------------------------ contents


def _about(model: Model, inside: bool) -> dict[str, Any]:
    config = model.config
    size, channels = config.data.image_size, config.data.channels
    arguments = ["seeds: uint32 (N,)"] + ["labels: int32 (N,)"] * (config.data.num_classes > 0)
    kind = "float32" if config.data.name in mixture.SETS else "uint8"
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "method": "DDGAN" if config.objective.joint else "SIDDM",
        "data": {
            "name": config.data.name,
            "image_size": size,
            "channels": channels,
            "num_classes": config.data.num_classes,
        },
        "step": model.step,
        "weights": model.kind,
        "dtype": weights.dtype_of(model.params),
        "parameters": show.num_parameters(model.params),
        "denoising_steps": model.num_steps,
        "provenance": model.about["provenance"],
        "metrics": model.about["metrics"],
        "sampler": {
            "arguments": arguments if inside else ["arrays of model.safetensors", *arguments],
            "result": f"{kind} (N, {size}, {size}, {channels})",
            "images_at_a_time": config.sampling.chunk_size,
            "platforms": list(stablehlo.PLATFORMS),
        },
        "randomness": randomness.about(),
        "written_by": {"ddgan_jax": ddgan_jax.__version__, "jax": jax.__version__},
    }


def _draw_few(model: Model, seeds: Sequence[int]) -> np.ndarray:
    """The images of a few seeds, without drawing more to fill a chunk."""
    size = min(model.config.sampling.chunk_size, len(seeds))
    return model.with_sampling(chunk_size=size).sample(seeds)


def _difference(rounded: np.ndarray, stored: np.ndarray) -> dict[str, Any]:
    """How far the images of the rounded parameters are from those of the stored ones."""
    difference = np.abs(rounded.astype(np.float64) - stored)
    return {
        "images": len(difference),
        "mean_difference": round(float(difference.mean()), 4),
        "largest_difference": float(difference.max()),
        "unit": "levels of 0 to 255" if stored.dtype == np.uint8 else "coordinates",
    }


def _package(name: str) -> bytes:
    """The modules of a pure Python package as a zip file that Python can import from."""
    content = io.BytesIO()
    files = [file for file in importlib.resources.files(name).iterdir() if file.name[-3:] == ".py"]
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(files, key=lambda file: file.name):
            # An entry without a time: the same package is the same file.
            entry = zipfile.ZipInfo(f"{name}/{file.name}")
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _to_json(about: Mapping[str, Any]) -> bytes:
    return (json.dumps(about, indent=2) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _config_sha256(config: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(config, sort_keys=True).encode())


# ------------------------------------------------------------------------------------- reading


def _read_about(folder: epath.Path) -> dict[str, Any]:
    source = folder / "config.json"
    if not folder.exists():
        raise UserError(f"there is no export at {folder}")
    try:
        about = json.loads(_read_file(folder, "config.json"))
    except ValueError as error:
        raise UserError(f"{source} is damaged, it is not JSON ({error})") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(f"{source} is not that of an export; for a run folder use --workdir")
    version = about.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"{folder} is an export of format {version}, this program knows those up to "
            f"{FORMAT_VERSION}: use a newer ddgan-jax"
        )
    wanted = ("config", "sha256", "step", "weights", *ABOUT)
    missing = [key for key in wanted if key not in about]
    if missing:
        raise UserError(f"{source} is damaged, it lacks {', '.join(missing)}")
    return about


def _read_file(folder: epath.Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not a whole export: {name} is missing") from error
    except OSError as error:
        raise UserError(f"cannot read {folder / name}: {error.strerror or error}") from error


def _fetch(repository: str) -> epath.Path:
    """The folder with the files of a repository of models, `user/name` or `user/name@revision`."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f'{HUB} needs huggingface_hub: pip install "ddgan-jax[hub]"') from error
    name, _, revision = repository.partition("@")
    try:
        return epath.Path(huggingface_hub.snapshot_download(name, revision=revision or None))
    except (OSError, ValueError) as error:  # all of its own errors are one of these
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot fetch {HUB}{repository}: {reason}") from error


def dtype_name(text: str) -> str:
    """The dtype that --dtype names: bf16 or f32, or in full. Raises UserError for another."""
    names = {
        "": "",
        "f32": "float32",
        "bf16": "bfloat16",
        **{name: name for name in weights.DTYPES},
    }
    if text not in names:
        raise UserError(f"--dtype={text} is not f32 or bf16")
    return names[text]
