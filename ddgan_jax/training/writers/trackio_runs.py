"""Tell a run to trackio, which keeps it on this machine, or where TRACKIO_SPACE_ID says."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import trackio  # pyright: ignore[reportMissingImports] an extra of the package
from jaxtyping import UInt8

from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.training.writers import Writer, kept_name


def open_writer(folder: RunFolder, first_step: int) -> Writer:
    """Begin a run of trackio, or go on with the one that the run folder names."""
    return _Trackio(folder)


class _Trackio:
    def __init__(self, folder: RunFolder):
        # Names are what trackio finds a run by, so that they must differ.
        name, _ = kept_name(folder, "trackio", lambda: f"run-{secrets.token_hex(4)}")
        self._run = trackio.init(
            os.environ.get("TRACKIO_PROJECT", "ddgan_jax"),
            name=name,
            group=folder.path.name,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def config(self, fields: Mapping[str, Any], scores: Sequence[str]) -> None:
        # trackio sends the config together with the first numbers.
        self._run.config.update(fields)

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def image(self, step: int, tag: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        # It takes three channels.
        rgb = np.broadcast_to(image, (*image.shape[:2], 3))
        self._run.log({tag: trackio.Image(rgb)}, step=step)

    def flush(self) -> None:
        # A thread of trackio's own writes what it was told.
        pass

    def close(self, failed: bool) -> None:
        self._run.finish()
