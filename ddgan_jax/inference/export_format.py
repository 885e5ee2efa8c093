"""Read and check an export; the declarations here are the format of its config.json.

An export may come from anybody, and nothing in it is run. Only model.safetensors and config.json
are used, and the other files are compared with their checksums. Names of files are plain names
inside the folder, sizes are bounded, and every value has a declared type.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from etils import epath

from ddgan_jax import models
from ddgan_jax.config import LARGEST, empty_local_paths, from_stored
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign
from ddgan_jax.inference import weights
from ddgan_jax.inference.model import Model

FORMAT = "ddgan_jax export"
FORMAT_VERSION = 1
# The files that `export` writes.
OURS = {"model.safetensors", "config.json", "sampler.stablehlo", "samples.png", "README.md"}
# Bytes of config.json.
LARGEST_ABOUT = 2 * 2**20
# Characters of a licence, or of any other text about a model.
LONGEST_TEXT = 2000
# The parts of Model.about that are carried from export to export.
ABOUT = ("provenance", "licence", "metrics")

Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
Amount = Annotated[float, msgspec.Meta(ge=0)]


class _Kind(msgspec.Struct):
    """The fields that tell an export's config.json, of any version, from another file."""

    format: Any = None
    format_version: Any = None
    sha256: Any = None


class _Rounding(msgspec.Struct):
    images: Annotated[int, msgspec.Meta(ge=1)]
    mean_difference: Amount
    largest_difference: Amount
    unit: Text


class _About(msgspec.Struct):
    """The fields of config.json that are read; `export._about` has all that are written."""

    config: dict[str, Any]
    sha256: dict[str, Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]]
    step: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
    weights: Literal["ema", "raw"]
    provenance: dict[str, Any]
    licence: Text
    metrics: dict[str, Any]
    rounding: _Rounding | None = None


def read(folder: str | os.PathLike) -> Model:
    """Return the model of an export. It may come from anybody, and nothing in it is run.

    Every file is compared with its checksum, whether or not it is needed. Raises UserError with the
    fault for anything but a whole export.
    """
    folder = epath.Path(folder)
    about = _read_about(folder)
    # The files are read once, and the bytes that were checked are the bytes that are used.
    content = b""
    for name, expected in about.sha256.items():
        if name == "config":
            found = config_sha256(about.config)
            name = 'config.json, the part "config",'
        else:
            read_here = foreign.read_bytes(foreign.member(folder, name))
            content = read_here if name == "model.safetensors" else content
            found = sha256(read_here)
        if found != expected:
            raise UserError(
                f"{shown(folder, 300)}: {shown(name)} is damaged, it does not match its checksum"
            )
    try:
        config = from_stored(about.config)
        # An export from somebody else must not make this machine open its files.
        empty_local_paths(config)
    except UserError as error:
        raise UserError(f"{shown(folder / 'config.json', 300)}: {error}") from error
    # The config decides names and shapes, and the file is compared with them.
    template = models.abstract_params(config)[0]
    params = weights.from_safetensors(content, template, folder / "model.safetensors")
    kept = {name: getattr(about, name) for name in ABOUT}
    if about.rounding:
        kept["rounding"] = msgspec.structs.asdict(about.rounding)
    return Model(config, params, about.step, about.weights, kept, source=shown(folder, 300))


def is_export(folder: epath.Path) -> bool:
    """Return whether the folder is an export, of whatever version, whole or not."""
    try:
        return foreign.read_json(folder / "config.json", _Kind).format == FORMAT
    except UserError:
        return False


def own_files(folder: epath.Path) -> set[str]:
    """Return the names of the files that an export has: those that it lists, and those of OURS."""
    listed = foreign.read_json(folder / "config.json", _Kind).sha256
    return OURS | set(listed if isinstance(listed, dict) else ())


def _read_about(folder: epath.Path) -> _About:
    source = folder / "config.json"
    with foreign.reading(folder, "export"):
        if not folder.exists():
            raise UserError(f"there is no export at {shown(folder, 300)}")
    content = foreign.read_bytes(source, "JSON file", most=LARGEST_ABOUT)
    # The version comes first, since a newer format may have other fields.
    kind = foreign.decode_json(content, _Kind, source=source)
    if kind.format != FORMAT:
        raise UserError(
            f"{shown(source, 300)} is not that of an export; for a run folder use `workdir`"
        )
    version = kind.format_version
    # True is an int to Python, and no version.
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise UserError(
            f"{shown(folder, 300)} is an export of format {shown(version)}, this program knows "
            f"those up to {FORMAT_VERSION}: use a newer ddgan-jax"
        )
    about = foreign.decode_json(content, _About, source=source)
    # A list of checksums without these two would let other parameters pass.
    for name in ("model.safetensors", "config"):
        if name not in about.sha256:
            raise UserError(f"{shown(source, 300)} is damaged, it has no checksum of {name}")
    return about


def sha256(content: bytes) -> str:
    """Return the checksum of a file, as text."""
    return hashlib.sha256(content).hexdigest()


def config_sha256(config: Mapping[str, Any]) -> str:
    """Return the checksum of the part "config" of config.json, as text."""
    # Sorted keys make the checksum one of the values, however the file is laid out.
    return sha256(json.dumps(config, sort_keys=True).encode())
