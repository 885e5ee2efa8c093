"""Read the newest checkpoint that is whole, every array checked against its manifest."""

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import msgspec
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.files import foreign
from ddgan_jax.files.paths import entries, is_bucket
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.state import Params, PyTree, TrainState

Report = Callable[[str], None]
T = TypeVar("T")


class Manifest(msgspec.Struct):
    """The contents of a checkpoint: dtype with shape, and CRC-32, of every array by its name."""

    state: dict[str, tuple[str, int]]
    ema: dict[str, tuple[str, int]]
    config: int  # CRC-32


class DamagedError(Exception):
    """Raised for a step's folder that is damaged; the message names the item or the array."""


def list_steps(directory: str | os.PathLike) -> list[int]:
    """Return the steps with a complete folder, ascending; their content is not verified."""
    # Folders in a bucket cannot be renamed. One there is complete when a file says so.
    if is_bucket(directory):
        directory = epath.Path(directory)
        names = ocp.path.step.standard_name_format()
        return sorted(s.step for s in names.find_all(directory)) if directory.exists() else []
    return sorted(int(path.name) for path in entries(directory) if _is_step(path.name))


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 20


def load_ema(
    directory: str | os.PathLike, step: int | None = None, *, report: Report
) -> tuple[int, dict[str, Any], Params]:
    """Return step, config and EMA parameters (on the default device), by default the newest.

    Reads no other part of the checkpoint and changes nothing on disk. Damaged newer steps are
    skipped with one line each to `report`. Raises UserError if there is no checkpoint, if none
    is whole, or if the given step is missing or damaged.
    """

    def read(folder: epath.Path) -> tuple[dict[str, Any], Params]:
        manifest, config = read_manifest_and_config(folder)
        return config, read_arrays(folder, "ema", manifest.ema)

    found, damaged = newest_whole(absolute(directory), step, read)
    for above, why in damaged.items():
        report(f"skipped the checkpoint of step {above}: {why}")
    if found is None:
        raise UserError(f"no checkpoint in {directory}: train first, or name another run folder")
    step, (config, ema) = found
    return step, config, jax.device_put(ema["generator"]["ema_params"])


def load_state(directory: str | os.PathLike, abstract_state: PyTree, step: int) -> TrainState:
    """Return the whole state of `step`, otherwise as `load_ema`; abstract_state as in `restore`."""
    found, _ = newest_whole(absolute(directory), step, state_reader(abstract_state))
    # A step that was asked for is found, or an error was raised.
    assert found is not None
    return found[1]


def state_reader(abstract_state: PyTree) -> Callable[[epath.Path], TrainState]:
    """Return read(folder), which gives the state in a step's folder in the given shardings."""
    like = by_name(abstract_state)

    def read(folder: epath.Path) -> TrainState:
        manifest, _ = read_manifest_and_config(folder)
        # The manifest is enough to see that the networks differ, before any array is read.
        _check_same_arrays(folder, manifest.state | manifest.ema, like)
        ema = read_arrays(folder, "ema", manifest.ema)
        arrays = read_arrays(folder, "state", manifest.state) | by_name(ema)
        placed = [_place(arrays[name], leaf) for name, leaf in like.items()]
        return jax.tree.unflatten(jax.tree.structure(abstract_state), placed)

    return read


def absolute(directory: str | os.PathLike) -> epath.Path:
    """Return the folder's absolute path; an address in a bucket stays as it is."""
    # Orbax wants absolute paths; gs://bucket is one, and absolute() would spoil it.
    path = epath.Path(directory)
    return path if path.is_absolute() else path.absolute()


def newest_whole(
    directory: epath.Path, step: int | None, read: Callable[[epath.Path], T]
) -> tuple[tuple[int, T] | None, dict[int, str]]:
    """Return the newest whole step with the result of `read`, and the damage of newer steps.

    Another process may write newer steps and delete older ones meanwhile: a folder is damaged only
    if it is still there after it was read in vain. Raises UserError if the given step is missing or
    damaged, or if no step is whole.
    """
    steps = list_steps(directory)
    if step is not None and step not in steps:
        raise UserError(f"no checkpoint of step {step} in {directory}; there are: {steps}")
    damaged: dict[int, str] = {}
    # The list is read again after each damaged step, because a running job deletes old steps.
    while candidates := [s for s in steps if s not in damaged and step in (None, s)]:
        folder = directory / str(candidates[-1])
        try:
            return (candidates[-1], read(folder)), damaged
        except DamagedError as damage:
            if folder.exists():
                damaged[candidates[-1]] = str(damage)
            steps = list_steps(directory)
    if not damaged:
        return None, {}
    named = "; ".join(f"step {above}: {why}" for above, why in damaged.items())
    if step is not None:
        earlier = ", ".join(str(s) for s in reversed(steps) if s < step) or "there is none"
        raise UserError(f"damaged checkpoint in {directory} ({named}); earlier steps: {earlier}")
    # A writer may be about to replace the only step, and the same command may work in a moment.
    if RunFolder(directory.parent).is_being_written():
        raise BusyError(
            f"no checkpoint in {directory} is whole ({named}), and a process is training there: "
            "try again"
        )
    raise UserError(f"no checkpoint in {directory} is whole ({named}); to start anew, move it")


def _read(folder: epath.Path, item: str, handler: ocp.CheckpointHandler) -> Any:
    try:
        with ocp.Checkpointer(handler) as checkpointer:
            return checkpointer.restore(folder / item)
    # Damage leads Orbax and TensorStore to raise nearly anything.
    except Exception as error:
        # TensorStore gives a page of context. The file that it stumbled over is worth a line.
        text = str(error).strip().split("\n")[0].split(" [tensorstore_spec")[0]
        file = re.match(r'.*local file "([^"]*[^"/])"(?:: )?(.*)', text)
        why = f"{file[1]}: {file[2] or 'missing'}" if file else text[:300]
        raise DamagedError(f"{folder / item} cannot be read ({why})") from error


def read_manifest_and_config(folder: epath.Path) -> tuple[Manifest, dict[str, Any]]:
    """Return the manifest and the config of a step's folder, both checked against their checksums.

    Raises DamagedError.
    """
    saved = _read(folder, "manifest", ocp.JsonCheckpointHandler())
    if not isinstance(saved, dict) or saved.get("crc32") != checksum(saved.get("content")):
        raise DamagedError(f"{folder / 'manifest'} does not match its checksum")
    try:
        manifest = foreign.convert(saved.get("content"), Manifest, source=folder / "manifest")
    except UserError as error:
        raise DamagedError(str(error)) from error
    # A folder that somebody renamed would resume a run at a step that is not its own.
    step = manifest.state.get("step")
    if step is not None and step != tuple(describe(np.asarray(int(folder.name), np.int32))):
        raise DamagedError(f"{folder} is the checkpoint of another step")
    config = _read(folder, "config", ocp.JsonCheckpointHandler())
    if checksum(config) != manifest.config:
        raise DamagedError(f"{folder / 'config'} does not match its checksum")
    return manifest, config


def read_arrays(folder: epath.Path, item: str, expected: Mapping[str, tuple[str, int]]) -> PyTree:
    """Return the verified host arrays of `item`, as they were saved."""
    arrays = _read(folder, item, ocp.PyTreeCheckpointHandler())
    found = {name: tuple(describe(array)) for name, array in by_name(arrays).items()}
    damaged = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if damaged:
        raise DamagedError(f"{folder / item}: the array {damaged[0]} does not match its checksum")
    return arrays


def _check_same_arrays(
    folder: epath.Path, saved: Mapping[str, tuple[str, int]], like: Mapping[str, Any]
) -> None:
    # Only forms are compared here; checksums are compared when the arrays are read.
    there = {name: form for name, (form, _) in saved.items()}
    here = {name: f"{leaf.dtype} {tuple(leaf.shape)}" for name, leaf in like.items()}
    names = [name for name in here | there if here.get(name) != there.get(name)]
    if names:
        first = ", ".join(
            f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
            for name in names[:3]
        )
        raise UserError(f"{folder} is of other networks: {first}; {len(names)} arrays differ")


def _place(array: np.ndarray, like: Any) -> jax.Array:
    sharding = getattr(like, "sharding", None)
    if sharding is None:
        return jax.device_put(array)
    # Not device_put: across processes that would first compare the values over the network.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def by_name(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by path, "generator/params/..."; a flat dict of such names gives itself."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def describe(array: np.ndarray) -> list[Any]:
    """Return an array's entry in a manifest: its dtype with its shape, and its CRC-32."""
    # An array without axes cannot be viewed as bytes, hence `reshape`. Neither step copies.
    crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return [f"{array.dtype} {array.shape}", crc]


def checksum(config: Any) -> int:
    """Return the CRC-32 of a value that JSON can hold, whatever the order of its keys."""
    return zlib.crc32(json.dumps(config, sort_keys=True).encode())
