"""Write a run's checkpoints in the background, and restore a run from the newest whole one."""

import errno
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from ddgan_jax import distributed
from ddgan_jax.checkpoint.reading import (
    DamagedError,
    Report,
    absolute,
    by_name,
    checksum,
    describe,
    list_steps,
    newest_whole,
    read_arrays,
    read_manifest_and_config,
    state_reader,
)
from ddgan_jax.errors import UserError
from ddgan_jax.state import PyTree, TrainState

_EMA = "generator/ema_params/"
# Failures that keep a healthy program from writing, as the words in which TensorStore has them.
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_WRITE_FAILURES = [os.strerror(number) for number in _NUMBERS]


class Checkpoints(AbstractContextManager):
    """The checkpoints of one run, open for writing; leaving the context waits for the last."""

    def __init__(self, directory: str | os.PathLike, *, keep_latest: int, keep_every_steps: int):
        """Open `directory`, made if it is missing.

        keep_latest: newest steps that stay, at least 1. keep_every_steps: multiples of it stay as
        well, 0 for none. Older steps are deleted after a newer one is complete, never before.
        Raises UserError if the folder cannot be made.
        """
        self._directory = absolute(directory)
        # Orbax keeps what any of the policies keeps.
        policies: list[Any] = [checkpoint_managers.LatestN(max(1, keep_latest))]
        if keep_every_steps:
            policies.append(checkpoint_managers.EveryNSteps(keep_every_steps))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            # Folders made in the background would leave threads waiting for them if that fails.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            # A kill during a save leaves a temporary folder. Nobody else writes here.
            cleanup_tmp_directories=True,
            lightweight_initialize=True,
        )
        try:
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        except OSError as error:
            raise UserError(f"cannot make {self._directory}: {error.strerror}") from error
        # The step that is being written, for the message about a failure.
        self._pending: int | None = None

    def save(self, step: int, state: TrainState, config: Mapping[str, Any]) -> bool:
        """Start writing `state`, and return once its arrays are copied to the host.

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
        # Orbax ties arrays of devices to these devices, and the loop donates them to the next step.
        state = distributed.to_host(state)
        items = {
            "state": {k: v for k, v in by_name(state).items() if not k.startswith(_EMA)},
            "ema": {"generator": {"ema_params": state.generator.ema_params}},
        }
        # Checksums are made of the arrays in memory, before any storage has touched them.
        manifest: dict[str, Any] = {
            k: {n: describe(a) for n, a in by_name(v).items()} for k, v in items.items()
        }
        manifest["config"] = checksum(config)
        arguments = {name: ocp.args.PyTreeSave(item) for name, item in items.items()} | {
            "config": ocp.args.JsonSave(dict(config)),
            "manifest": ocp.args.JsonSave({"content": manifest, "crc32": checksum(manifest)}),
        }
        self._pending = step
        with self._write_errors():
            # Whether it is time to save is the caller's business: force.
            self._manager.save(step, args=ocp.args.Composite(**arguments), force=True)
        return True

    def restore(
        self, abstract_state: PyTree, step: int | None = None, *, report: Report
    ) -> tuple[int, TrainState] | None:
        """Return the state of `step`, by default of the newest whole step; None if there is none.

        abstract_state: tree of jax.ShapeDtypeStruct (or arrays); its shardings say where the
        arrays go, without one they go to the default device. Damaged steps newer than the one
        restored are renamed to <step>.damaged, so that training can write them anew, and each is
        named in one line to `report`. Raises UserError if the arrays are not those of
        `abstract_state`, if no step is whole, or if the given step is missing or damaged.
        """
        found, damaged = newest_whole(self._directory, step, state_reader(abstract_state))
        for above, why in damaged.items():
            aside = self._set_aside(above)
            report(f"skipped the checkpoint of step {above}: {why}; it is now {aside}")
        return found

    def wait(self) -> None:
        """Return when nothing is being written. Raises UserError if the last save failed."""
        with self._write_errors():
            self._manager.wait_until_finished()
        self._pending = None

    def close(self, *exception: object) -> None:
        """Wait like `wait` and end Orbax's threads, also when the last save failed."""
        try:
            self.wait()
        finally:
            self._manager.close()

    __exit__ = close

    def check_drawable(self, step: int) -> None:
        """Raise UserError unless the averaged parameters of a step can be read back, bit by bit."""
        folder = self._directory / str(step)
        try:
            manifest, _ = read_manifest_and_config(folder)
            read_arrays(folder, "ema", manifest.ema)
        except DamagedError as error:
            raise UserError(f"the checkpoint of step {step} cannot be read: {error}") from error

    def latest_step(self) -> int | None:
        """Return the newest complete step; None if there is none."""
        return max(list_steps(self._directory), default=None)

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        # TensorStore raises ValueError, with the cause in words.
        except (OSError, ValueError) as error:
            why = next((words for words in _WRITE_FAILURES if words in str(error)), None)
            if why is None:
                raise
            step, self._pending = self._pending, None
            # The manager has forgotten the steps that this one was to replace.
            self._manager.reload()
            whole = [s for s in list_steps(self._directory) if s != step]
            rest = f"the checkpoint of step {whole[-1]} is whole" if whole else "there is no other"
            raise UserError(
                f"cannot write the checkpoint of step {step} to {self._directory}: {why}; {rest}"
            ) from error

    def _set_aside(self, step: int) -> epath.Path:
        names = (f"{step}.damaged{number or ''}" for number in itertools.count())
        aside = next(p for p in (self._directory / name for name in names) if not p.exists())
        # All processes look for the unused name before one of them renames, and wait for the new
        # name.
        ocp.multihost.sync_global_processes(f"all_found_{step}_damaged")
        if distributed.is_main_process():
            (self._directory / str(step)).rename(aside)
        ocp.multihost.sync_global_processes(f"set_aside_{step}")
        self._manager.reload()
        return aside
