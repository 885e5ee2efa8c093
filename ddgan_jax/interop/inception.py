"""Convert the published InceptionV3 weights to a file of our own that needs no PyTorch.

A unit of the published network is a convolution without bias, W, and a batch normalisation by the
statistics m, v with scale g and bias b. In evaluation both are one convolution with a bias:

    g (W x - m) / sqrt(v + eps) + b = (s W) x + (b - s m),     s = g / sqrt(v + eps)            (1)

folded in float64. `convert` does so once.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ddgan_jax import randomness
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import arrays, foreign
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.files.paths import user_path
from ddgan_jax.interop import pytorch_files, state_dicts
from ddgan_jax.interop.state_dicts import StateDict
from ddgan_jax.metrics.names import INCEPTION_URL
from ddgan_jax.models import parameters
from ddgan_jax.models.inception import INPUT_SIZE, InceptionV3
from ddgan_jax.state import Params, PyTree

PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# Bytes of a file; the published one has 96 MB.
LARGEST = 2**30
# The epsilon of the published batch normalisations.
EPSILON = 1e-3
_HOW_TO_CONVERT = f"fetch {INCEPTION_URL} and run: ddgan import inception --from=FILE"


class InceptionWeights(NamedTuple):
    """The content of a converted file."""

    # float32, for evaluation.inception.features.
    params: Params
    # Of these numbers, equal for equal weights from any file.
    sha256: str
    # Of the file that they were converted from.
    source_sha256: str


def import_inception(state_dict: StateDict) -> Params:
    """Return the parameters of `models.inception.InceptionV3` from the published state dict.

    They are float64. Raises UserError that names entries that are missing, unused or of another
    shape.
    """
    # The Inception Score is defined without the bias of the classifier, and evaluation reads no
    # counter of batches.
    state_dicts.check_entries(
        state_dict,
        published_shapes(),
        "that of the FID InceptionV3",
        may_be_unused=lambda name: name == "fc.bias" or name.endswith(".num_batches_tracked"),
    )

    def entry(name: str) -> np.ndarray:
        value = state_dict[name]
        if value.dtype.kind != "f":
            raise UserError(f"this state dict is of no network: {name} holds no floats")
        return np.asarray(value, np.float64)

    def our_value(path: tuple, _: jax.ShapeDtypeStruct) -> np.ndarray:
        unit, leaf = _unit_and_leaf(path)
        if unit == "fc":
            return entry("fc.weight").T
        # The scale s of equation 1; the bias and the kernel below are its two other terms.
        scale = entry(f"{unit}.bn.weight") / np.sqrt(entry(f"{unit}.bn.running_var") + EPSILON)
        if leaf == "bias":
            return entry(f"{unit}.bn.bias") - scale * entry(f"{unit}.bn.running_mean")
        return entry(f"{unit}.conv.weight").transpose(2, 3, 1, 0) * scale

    return jax.tree.map_with_path(our_value, template())


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every published entry that the network reads, by name."""
    shapes = {}
    for path, leaf in jax.tree.leaves_with_path(template()):
        unit, name = _unit_and_leaf(path)
        if unit == "fc":
            shapes["fc.weight"] = leaf.shape[::-1]
        elif name == "kernel":
            h, w, fan_in, fan_out = leaf.shape
            shapes[f"{unit}.conv.weight"] = (fan_out, fan_in, h, w)
        else:
            for statistic in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{unit}.bn.{statistic}"] = leaf.shape
    return shapes


def template() -> PyTree:
    """Return the shapes and dtypes of the network's parameters; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, INPUT_SIZE, INPUT_SIZE, 3), jnp.result_type(float))
    return jax.eval_shape(lambda x: InceptionV3().init(randomness.run_key(0), x), images)["params"]


def _unit_and_leaf(path: tuple) -> tuple[str, str]:
    *unit, leaf = (key.key for key in path)
    return ".".join(unit), leaf


def convert(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    expected_sha256: str | None = PUBLISHED_SHA256,
) -> None:
    """Convert a published .pth, or an .npz of its state dict, to our float32 .npz.

    The content of the file decides which of the two it is. expected_sha256: The checksum that a
    .pth must have, None for any. No checksum of an .npz is published, so that any is accepted.
    Raises UserError for a file that is missing, damaged or another one.
    """
    path = _existing(path)
    content = foreign.read_bytes(path, "Inception weights", most=LARGEST)
    source_sha256 = hashlib.sha256(content).hexdigest()
    # By the content, since anybody may have renamed the file.
    is_npz = _is_npz(content)
    if not is_npz and expected_sha256 not in (None, source_sha256):
        raise UserError(
            f"{shown(path, 300)} is not the expected file: its SHA-256 is {source_sha256}, not "
            f"{expected_sha256}; fetch {INCEPTION_URL} again"
        )
    state_dict = _read_npz(path) if is_npz else _read_pth(path, content)
    # Numbers that are not finite are reported below, in one line and not as a warning.
    with np.errstate(all="ignore"):
        params = jax.tree.map(np.float32, import_inception(state_dict))
    found = {"/".join(_unit_and_leaf(p)): v for p, v in jax.tree.leaves_with_path(params)}
    _check_finite(path, found)
    # The archive is made in memory, and the file replaced whole.
    file = io.BytesIO()
    np.savez(file, sha256=_digest(found), source_sha256=source_sha256, **found)
    write_atomically(user_path(out, "out"), file.getvalue())


def load(path: str | os.PathLike) -> InceptionWeights:
    """Return the weights of a file that `convert` wrote.

    Raises UserError if the file is missing, fails its checksum, or lacks parameters of the network.
    """
    path = _existing(path)
    found = _read_npz(path)
    sha256, source_sha256 = (
        # The two checksums are taken out, so that the parameters alone are left for the digest.
        str(found.pop(name)) if name in found else ""
        for name in ("sha256", "source_sha256")
    )
    if any(value.dtype.kind != "f" for value in found.values()) or sha256 != _digest(found):
        raise UserError(f"{shown(path, 300)} is damaged or not converted by us: {_HOW_TO_CONVERT}")
    _check_entries(path, found)
    _check_finite(path, found)
    # The file has the published names of the units, "Mixed_5b.branch1x1/kernel".
    params = parameters.nested({name.replace(".", "/"): value for name, value in found.items()})
    return InceptionWeights(params, sha256, source_sha256)


def _check_entries(path: str | os.PathLike, found: Mapping[str, np.ndarray]) -> None:
    leaves = jax.tree.leaves_with_path(template())
    wanted = {"/".join(_unit_and_leaf(p)): leaf.shape for p, leaf in leaves}
    there = {name: value.shape for name, value in found.items()}
    # In either dict but not equal in both: missing, unused or of another shape.
    wrong = [name for name in wanted | there if wanted.get(name) != there.get(name)]
    if wrong:
        raise UserError(
            f"{shown(path, 300)} does not hold the FID InceptionV3: {shown(wrong[0])} and "
            f"{len(wrong) - 1} other entries are missing, unused or of another shape: "
            f"{_HOW_TO_CONVERT}"
        )


def _check_finite(path: str | os.PathLike, found: Mapping[str, np.ndarray]) -> None:
    wrong = next((name for name, value in found.items() if not np.isfinite(value).all()), None)
    if wrong is not None:
        raise UserError(
            f"{shown(path, 300)} holds weights that are not finite, in {shown(wrong)}: "
            f"{_HOW_TO_CONVERT}"
        )


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    # Names and shapes belong to the checksum, since swapped arrays have the same bytes.
    for name in sorted(arrays):
        # Little-endian float32 on every machine, so that the checksum is the same everywhere.
        value = np.ascontiguousarray(arrays[name], "<f4")
        digest.update(f"{name} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _existing(path: str | os.PathLike) -> epath.Path:
    place = user_path(path, "inception")
    with foreign.reading(place, "file of Inception weights"):
        # Asking may fail as well, for a folder that may not be read: `reading` makes one line of
        # that.
        missing = not place.exists()
    if missing:
        raise UserError(f"there are no Inception weights at {shown(place, 300)}: {_HOW_TO_CONVERT}")
    return place


def _is_npz(content: bytes) -> bool:
    """Return whether this is an archive of arrays; a .pth is an archive of other things."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    # zipfile raises all kinds of errors for other files.
    except Exception:
        return False


def _read_npz(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        return arrays.read_arrays(path)
    except UserError as error:
        raise UserError(f"{error}: {_HOW_TO_CONVERT}") from error


def _read_pth(path: epath.Path, content: bytes) -> dict[str, np.ndarray]:
    state_dict = pytorch_files.load(content, path)
    if isinstance(state_dict, dict) and all(
        isinstance(name, str) and isinstance(value, np.ndarray)
        for name, value in state_dict.items()
    ):
        return state_dict
    raise UserError(f"{shown(path, 300)} holds no state dict of PyTorch")
