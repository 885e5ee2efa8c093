"""Tell a run to Weights & Biases, as WANDB_PROJECT, WANDB_MODE and its other variables say."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import wandb  # pyright: ignore[reportMissingImports] an extra of the package
from jaxtyping import UInt8

from ddgan_jax.files.paths import is_bucket
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.training.writers import Writer, kept_name

STEP = "step"


def open_writer(folder: RunFolder, first_step: int) -> Writer:
    """Begin a run of W&B, or go on with the one that the run folder names."""
    return _Wandb(folder)


class _Wandb:
    def __init__(self, folder: RunFolder):
        name, _ = kept_name(folder, "wandb", lambda: secrets.token_hex(4))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "ddgan_jax"),
            id=name,
            name=os.environ.get("WANDB_NAME", folder.path.name),
            resume="allow",
            # Its own files must not fill the folder in which somebody started the program.
            dir=None if is_bucket(folder.path) else os.fspath(folder.path),
            # It would take over stdout and stderr, on which the progress moves.
            settings=wandb.Settings(console="off", silent=True),
        )
        # W&B's own count of steps only goes up. A resumed run tells steps again, so that steps are
        # a number like others, over which the charts are drawn.
        self._run.define_metric("*", step_metric=STEP)

    def config(self, fields: Mapping[str, Any], scores: Sequence[str]) -> None:
        # A resumed run may have changed some of its fields.
        self._run.config.update(dict(fields), allow_val_change=True)

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({STEP: step, **scalars})

    def image(self, step: int, tag: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        self._run.log({STEP: step, tag: wandb.Image(image)})

    def flush(self) -> None:
        # A process of W&B's own sends what it was told.
        pass

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
