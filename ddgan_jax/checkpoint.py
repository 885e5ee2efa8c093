"""Checkpoints of a run: written in the background, verified when read, never fewer than one.

The folder of a run's checkpoints holds one folder per step, named by the number:

    300/state/     all arrays of the train state but the EMA, {"generator/params/...": array}
    300/ema/       {"generator": {"ema_params": ...}}, all that sampling reads
    300/config/    the resolved config, JSON
    300/manifest/  dtype, shape and CRC-32 of every array, CRC-32 of the config, JSON

Three properties of Orbax, which does the storing, shape this file. It writes a step into a
temporary folder and renames it when complete, so a kill at any instant leaves the step before.
It returns damaged bytes without a word, hence the manifest: each array is checked on the host
after reading. It ties device arrays to the devices that saved them, hence host arrays: the state
is the same on every device, and a checkpoint restores onto any number of them.
"""

import errno
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import jax
import msgspec
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from ddgan_jax import distributed
from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.files import foreign
from ddgan_jax.files.paths import entries, is_bucket
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.state import Params, PyTree, TrainState

Report = Callable[[str], None]
T = TypeVar("T")

_EMA = "generator/ema_params/"
# What keeps a healthy program from writing.
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_WRITE_FAILURES = [os.strerror(number) for number in _NUMBERS]


class _Manifest(msgspec.Struct):
    """What a checkpoint should hold: dtype with shape, and CRC-32, of every array by its name."""

    state: dict[str, tuple[str, int]]
    ema: dict[str, tuple[str, int]]
    config: int  # CRC-32


class _DamagedError(Exception):
    """A step folder that cannot be trusted; the message names the item or the array."""


class Checkpoints(AbstractContextManager):
    """The checkpoints of one run, open for writing; leaving the context waits for the last."""

    def __init__(self, directory: str | os.PathLike, *, keep_latest: int, keep_every_steps: int):
        """Opens `directory`, made if it is missing.

        keep_latest: newest steps that stay, at least 1. keep_every_steps: multiples of it stay as
        well, 0 for none. Older steps are deleted after a newer one is complete, never before.
        Raises UserError if the folder cannot be made.
        """
        self._directory = _absolute(directory)
        policies = [checkpoint_managers.LatestN(max(1, keep_latest))]
        if keep_every_steps:
            policies.append(checkpoint_managers.EveryNSteps(keep_every_steps))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            # Folders made in the background would leave threads waiting for them if that fails.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            # What a kill during a save has left; nobody else writes here.
            cleanup_tmp_directories=True,
            lightweight_initialize=True,
        )
        try:
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        except OSError as error:
            raise UserError(f"cannot make {self._directory}: {error.strerror}") from error
        self._pending: int | None = None

    def save(self, step: int, state: TrainState, config: Mapping[str, Any]) -> bool:
        """Starts writing `state` and returns once its arrays are copied to the host.

        state: of any layout; it may be donated as soon as this returns. config: what JSON can hold.
        Returns False, and writes nothing, if the step is there already. Waits for the save
        before, if that still runs. Raises UserError if either could not be written, or if a newer
        step is there, which keeping the newest would delete.
        """
        self.wait()
        steps = list_steps(self._directory)
        if step in steps:
            return False
        if steps and step < steps[-1]:
            raise UserError(
                f"{self._directory / str(steps[-1])} is newer than step {step}: move it"
            )
        state = distributed.to_host(state)
        items = {
            "state": {k: v for k, v in _by_name(state).items() if not k.startswith(_EMA)},
            "ema": {"generator": {"ema_params": state.generator.ema_params}},
        }
        manifest = {k: {n: _describe(a) for n, a in _by_name(v).items()} for k, v in items.items()}
        manifest["config"] = _checksum(config)
        arguments = {name: ocp.args.PyTreeSave(item) for name, item in items.items()} | {
            "config": ocp.args.JsonSave(dict(config)),
            "manifest": ocp.args.JsonSave({"content": manifest, "crc32": _checksum(manifest)}),
        }
        self._pending = step
        with self._write_errors():
            # Whether it is time to save is the caller's business: force.
            self._manager.save(step, args=ocp.args.Composite(**arguments), force=True)
        return True

    def restore(
        self, abstract_state: PyTree, step: int | None = None, *, report: Report
    ) -> tuple[int, TrainState] | None:
        """The state of `step`, by default of the newest step that is whole; None if there is none.

        abstract_state: tree of jax.ShapeDtypeStruct (or arrays); its shardings say where the
        arrays go, without one they go to the default device. Damaged steps newer than the one
        restored are renamed to <step>.damaged, so that training can write them anew, and each is
        named in one line to `report`. Raises UserError if the arrays are not those of
        `abstract_state`, if no step is whole, or if the given step is missing or damaged.
        """
        found, damaged = _newest_whole(self._directory, step, _state_reader(abstract_state))
        for above, why in damaged.items():
            aside = self._set_aside(above)
            report(f"skipped the checkpoint of step {above}: {why}; it is now {aside}")
        return found

    def wait(self) -> None:
        """Returns when nothing is being written; raises UserError if the last save failed."""
        with self._write_errors():
            self._manager.wait_until_finished()
        self._pending = None

    def close(self, *exception: object) -> None:
        """Waits like `wait` and ends Orbax's threads, also when the last save failed."""
        try:
            self.wait()
        finally:
            self._manager.close()

    __exit__ = close

    def check_drawable(self, step: int) -> None:
        """Raise UserError unless the averaged parameters of a step can be read back, bit by bit."""
        folder = self._directory / str(step)
        try:
            manifest, _ = _read_manifest_and_config(folder)
            _read_arrays(folder, "ema", manifest.ema)
        except _DamagedError as error:
            raise UserError(f"the checkpoint of step {step} cannot be read: {error}") from error

    def latest_step(self) -> int | None:
        """The newest complete step; None if there is none."""
        return max(list_steps(self._directory), default=None)

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: TensorStore, with the cause in words
            why = next((words for words in _WRITE_FAILURES if words in str(error)), None)
            if why is None:
                raise
            step, self._pending = self._pending, None
            self._manager.reload()  # it has forgotten the steps that this one was to replace
            whole = [s for s in list_steps(self._directory) if s != step]
            rest = f"the checkpoint of step {whole[-1]} is whole" if whole else "there is no other"
            raise UserError(
                f"cannot write the checkpoint of step {step} to {self._directory}: {why}; {rest}"
            ) from error

    def _set_aside(self, step: int) -> epath.Path:
        names = (f"{step}.damaged{number or ''}" for number in itertools.count())
        aside = next(p for p in (self._directory / name for name in names) if not p.exists())
        ocp.multihost.sync_global_processes(f"all_found_{step}_damaged")
        if distributed.is_main_process():
            (self._directory / str(step)).rename(aside)
        ocp.multihost.sync_global_processes(f"set_aside_{step}")
        self._manager.reload()
        return aside


def list_steps(directory: str | os.PathLike) -> list[int]:
    """Steps with a complete folder under `directory`, ascending; their content is not verified."""
    if is_bucket(directory):  # a folder there is complete when a file says so
        directory = epath.Path(directory)
        names = ocp.path.step.standard_name_format()
        return sorted(s.step for s in names.find_all(directory)) if directory.exists() else []
    return sorted(int(path.name) for path in entries(directory) if _is_step(path.name))


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 20


def load_ema(
    directory: str | os.PathLike, step: int | None = None, *, report: Report
) -> tuple[int, dict[str, Any], Params]:
    """Step, config and EMA parameters (on the default device) of `step`, by default the newest.

    Reads no other part of the checkpoint and changes nothing on disk. Damaged newer steps are
    skipped with one line each to `report`. Raises UserError if there is no checkpoint, if none
    is whole, or if the given step is missing or damaged.
    """

    def read(folder: epath.Path) -> tuple[dict[str, Any], Params]:
        manifest, config = _read_manifest_and_config(folder)
        return config, _read_arrays(folder, "ema", manifest.ema)

    found, damaged = _newest_whole(_absolute(directory), step, read)
    for above, why in damaged.items():
        report(f"skipped the checkpoint of step {above}: {why}")
    if found is None:
        raise UserError(f"no checkpoint in {directory}: train first, or name another run folder")
    step, (config, ema) = found
    return step, config, jax.device_put(ema["generator"]["ema_params"])


def load_state(directory: str | os.PathLike, abstract_state: PyTree, step: int) -> TrainState:
    """The whole state of `step`, otherwise as `load_ema`; abstract_state as in `restore`."""
    found, _ = _newest_whole(_absolute(directory), step, _state_reader(abstract_state))
    return found[1]


def _state_reader(abstract_state: PyTree) -> Callable[[epath.Path], TrainState]:
    like = _by_name(abstract_state)

    def read(folder: epath.Path) -> TrainState:
        manifest, _ = _read_manifest_and_config(folder)
        _check_same_arrays(folder, manifest.state | manifest.ema, like)
        ema = _read_arrays(folder, "ema", manifest.ema)
        arrays = _read_arrays(folder, "state", manifest.state) | _by_name(ema)
        placed = [_place(arrays[name], leaf) for name, leaf in like.items()]
        return jax.tree.unflatten(jax.tree.structure(abstract_state), placed)

    return read


def _absolute(directory: str | os.PathLike) -> epath.Path:
    # Orbax wants absolute paths; gs://bucket is one, and absolute() would spoil it.
    path = epath.Path(directory)
    return path if path.is_absolute() else path.absolute()


def _newest_whole(
    directory: epath.Path, step: int | None, read: Callable[[epath.Path], T]
) -> tuple[tuple[int, T] | None, dict[int, str]]:
    """Return (step, what `read` made of it) of the newest whole step, and what is wrong above it.

    Another process may write newer steps and delete older ones meanwhile: only what is still there
    after it was read in vain is damaged.
    """
    steps = list_steps(directory)
    if step is not None and step not in steps:
        raise UserError(f"no checkpoint of step {step} in {directory}; there are: {steps}")
    damaged: dict[int, str] = {}
    while candidates := [s for s in steps if s not in damaged and step in (None, s)]:
        folder = directory / str(candidates[-1])
        try:
            return (candidates[-1], read(folder)), damaged
        except _DamagedError as damage:
            if folder.exists():
                damaged[candidates[-1]] = str(damage)
            steps = list_steps(directory)
    if not damaged:
        return None, {}
    named = "; ".join(f"step {above}: {why}" for above, why in damaged.items())
    if step is not None:
        earlier = ", ".join(str(s) for s in reversed(steps) if s < step) or "there is none"
        raise UserError(f"damaged checkpoint in {directory} ({named}); earlier steps: {earlier}")
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
    except Exception as error:  # damage leads Orbax and TensorStore to raise nearly anything
        # Of TensorStore's page of context: the file that it stumbled over and what is wrong.
        text = str(error).strip().split("\n")[0].split(" [tensorstore_spec")[0]
        file = re.match(r'.*local file "([^"]*[^"/])"(?:: )?(.*)', text)
        why = f"{file[1]}: {file[2] or 'missing'}" if file else text[:300]
        raise _DamagedError(f"{folder / item} cannot be read ({why})") from error


def _read_manifest_and_config(folder: epath.Path) -> tuple[_Manifest, dict[str, Any]]:
    saved = _read(folder, "manifest", ocp.JsonCheckpointHandler())
    if not isinstance(saved, dict) or saved.get("crc32") != _checksum(saved.get("content")):
        raise _DamagedError(f"{folder / 'manifest'} does not match its checksum")
    try:
        manifest = foreign.convert(saved.get("content"), _Manifest, source=folder / "manifest")
    except UserError as error:
        raise _DamagedError(str(error)) from error
    step = manifest.state.get("step")
    if step is not None and step != tuple(_describe(np.asarray(int(folder.name), np.int32))):
        raise _DamagedError(f"{folder} is the checkpoint of another step")
    config = _read(folder, "config", ocp.JsonCheckpointHandler())
    if _checksum(config) != manifest.config:
        raise _DamagedError(f"{folder / 'config'} does not match its checksum")
    return manifest, config


def _read_arrays(folder: epath.Path, item: str, expected: Mapping[str, tuple[str, int]]) -> PyTree:
    """Return the verified host arrays of `item`, as they were saved."""
    arrays = _read(folder, item, ocp.PyTreeCheckpointHandler())
    found = {name: tuple(_describe(array)) for name, array in _by_name(arrays).items()}
    damaged = [name for name in found | expected if found.get(name) != expected.get(name)]
    if damaged:
        raise _DamagedError(f"{folder / item}: the array {damaged[0]} does not match its checksum")
    return arrays


def _check_same_arrays(
    folder: epath.Path, saved: Mapping[str, tuple[str, int]], like: Mapping[str, Any]
) -> None:
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


def _by_name(tree: PyTree) -> dict[str, Any]:
    """Leaves by path, "generator/params/..."; a flat dict of such names gives itself."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _describe(array: np.ndarray) -> list[Any]:
    crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return [f"{array.dtype} {array.shape}", crc]


def _checksum(config: Any) -> int:
    return zlib.crc32(json.dumps(config, sort_keys=True).encode())
