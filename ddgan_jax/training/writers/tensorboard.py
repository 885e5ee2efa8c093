"""Write TensorBoard's event files into a run folder, on a disk or in a bucket."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ddgan_jax.files.atomic import write_errors
from ddgan_jax.files.paths import is_bucket
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.training.event_files import EventFile
from ddgan_jax.training.writers import Writer

# Bytes of an object in a bucket, after which the next one begins. An object is written anew
# whenever it grows, so that this bounds what a line costs.
LARGEST_OBJECT = 2**20

# The fields by which people compare runs, in TensorBoard's table of hyper-parameters.
HPARAMS = (
    *("data.name", "data.image_size", "diffusion.schedule", "diffusion.num_timesteps"),
    *("objective.r1_gamma", "objective.afd_weight", "train.batch_size", "train.seed"),
    *("optimizer.generator_learning_rate", "optimizer.discriminator_learning_rate"),
    *("optimizer.ema_decay", "generator.name", "discriminator.name"),
)


def open_writer(folder: RunFolder, first_step: int) -> Writer:
    """Open a writer of new event files in `folder`."""
    if is_bucket(folder.path):
        return _InBucket(folder, first_step)
    with write_errors(folder.path):
        return _OnDisk(folder, first_step)


class _OnDisk:
    """An event file that grows. What cannot be written ends the run, as for its other files."""

    def __init__(self, folder: RunFolder, first_step: int):
        self._folder = folder
        self._events = EventFile(folder.path, first_step)

    def config(self, fields: Mapping[str, Any], scores: Sequence[str]) -> None:
        with write_errors(self._folder.path):
            _write_config(self._events, fields, scores)

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        with write_errors(self._folder.path):
            self._events.write_scalars(step, scalars)

    def image(self, step: int, tag: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        with write_errors(self._folder.path):
            self._events.write_image(step, tag, image)

    def flush(self) -> None:
        with write_errors(self._folder.path):
            self._events.flush()

    def close(self, failed: bool) -> None:
        with write_errors(self._folder.path):
            self._events.close()


class _InBucket:
    """Event files that grow on this machine, and are copied into the bucket at each flush.

    TensorBoard reads the files of a folder one after the other, in the order of their names.
    """

    def __init__(self, folder: RunFolder, first_step: int):
        self._folder = folder
        self._here = tempfile.TemporaryDirectory(prefix="ddgan-events-")
        self._copied = 0
        self._events = EventFile(self._here.name, first_step)

    def config(self, fields: Mapping[str, Any], scores: Sequence[str]) -> None:
        _write_config(self._events, fields, scores)

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._events.write_scalars(step, scalars)

    def image(self, step: int, tag: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        self._events.write_image(step, tag, image)

    def flush(self) -> None:
        self._events.flush()
        (name,) = os.listdir(self._here.name)
        file = Path(self._here.name, name)
        content = file.read_bytes()
        if len(content) > self._copied:
            (self._folder.path / name).write_bytes(content)
            self._copied = len(content)
        if len(content) >= LARGEST_OBJECT:
            self._events.close()
            file.unlink()
            self._copied = 0
            self._events = EventFile(self._here.name)

    def close(self, failed: bool) -> None:
        with self._here:
            self.flush()
            self._events.close()


def _write_config(events: EventFile, fields: Mapping[str, Any], scores: Sequence[str]) -> None:
    # Markdown shows indented lines as they are.
    lines = json.dumps(fields, indent=2).splitlines()
    events.write_text("config", "\n".join(f"    {line}" for line in lines))
    flat = {f"{a}.{b}": value for a, section in fields.items() for b, value in section.items()}
    events.write_hparams({name: flat[name] for name in HPARAMS if name in flat}, scores)
