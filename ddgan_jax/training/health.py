"""Check numbers, images and disk space before a checkpoint is written.

The metrics of a step belong to the parameters before its update: they can be finite although the
update has left NaN. So the state itself is checked before it becomes the newest checkpoint, and
images are drawn from it, which is what a checkpoint promises.
"""

import math
import os
import shutil
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ddgan_jax import distributed
from ddgan_jax.errors import NotFiniteError, UserError
from ddgan_jax.files.paths import is_bucket
from ddgan_jax.inference import drawing
from ddgan_jax.state import Params, PyTree, TrainState


def check_state(
    step: int, state: TrainState, ema_params: Params, draw: drawing.Draw, request: drawing.Request
) -> None:
    """Refuse a state with a number that is not finite, or that draws an image with one.

    step: train steps done. state: sharded or replicated; every process of a job calls this.
    ema_params: the averaged parameters as `draw` takes them. request: images, of which the first
    chunk is drawn. Raises UserError, on all processes alike.
    """
    # Drawing takes longer than looking at the numbers, and comes second.
    where = "the parameters" if not _all_finite(state) else ""
    if not where:
        where = "" if _is_drawable(ema_params, draw, request) else "the images drawn from them"
    # The main process decides: if only some went on, they would wait for the others for ever.
    if distributed.from_main_process(bool(where)):
        raise UserError(
            f"step {step}: {where or 'parameters or images'} are not finite; no checkpoint was "
            "written, and those so far are untouched; lower learning rates or "
            "train.compute_dtype=float32 may help"
        )


def check_metrics(metrics: Mapping[int, Mapping[str, float]]) -> None:
    """Refuse steps with a metric that is not finite.

    metrics: by step, in ascending order; among them the norms of the gradients. Raises UserError
    for the first such step.
    """
    for step, values in metrics.items():
        bad = [f"{name} is {value:g}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"step {step}: {', '.join(bad)}; the checkpoints so far are untouched; lower "
                "learning rates or train.compute_dtype=float32 may help"
            )


def check_space(folder: str | os.PathLike, state: PyTree) -> None:
    """Refuse to start a run whose first checkpoint would not fit on the disk of `folder`.

    folder: exists. state: arrays or their shapes. Raises UserError.
    """
    # A bucket has no limit. On a disk the first checkpoint would fail after hours of training.
    if is_bucket(folder):
        return
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"a checkpoint takes {needed / 1e6:,.0f} MB, and the disk of {folder} has "
            f"{free / 1e6:,.0f} MB left: make room, or name another folder"
        )


def _is_drawable(ema_params: Params, draw: drawing.Draw, request: drawing.Request) -> bool:
    try:
        first = next(iter(draw(ema_params, request)))
    except NotFiniteError:
        return False
    return bool(np.isfinite(first).all())


# One program for all arrays: a single number has to be fetched from the devices.
@jax.jit
def _finite(leaves: list[jax.Array]) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))


def _all_finite(tree: PyTree) -> bool:
    # Integers, such as the step and Adam's counters, cannot be infinite.
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return bool(_finite(floats))
