"""What a run is trained on: a line of WORKDIR/machine.jsonl whenever it starts or goes on.

Beside the devices that is the data set, by its fingerprint: a run that goes on with other images
than before would end elsewhere, and nobody would know why.
"""

import os
import time
from typing import Any

import jax

import ddgan_jax
from ddgan_jax import distributed, randomness
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files.atomic import write_errors
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.training.reporter import warn


def check_same_data(folder: RunFolder, fingerprint: str, *, allow_changed: bool = False) -> None:
    """Refuse a data set that is not the one with which the run went on last.

    fingerprint: of `data.fingerprint`. allow_changed: only say so. Raises UserError.
    """
    known = [start.data for start in folder.read_starts(report=warn) if start.data]
    if not known or known[-1] == fingerprint:
        return
    if not allow_changed:
        raise UserError(
            f"the data set is not what it was when {shown(folder.path, 300)} was trained last (its "
            "images, labels or number changed): put it back, or allow it with allow_changed_data"
        )
    warn("the data set has changed since this run was trained last")


def describe(step: int, fingerprint: str = "") -> dict[str, Any]:
    """Return this job's devices, versions and data set, values that JSON can hold.

    step: train steps done before it. fingerprint: of `data.fingerprint`.
    """
    devices = distributed.all_devices()
    return {
        "step": step,
        "time": round(time.time(), 3),
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "platform": devices[0].platform,
        "processes": jax.process_count(),
        "cores": os.cpu_count(),  # of this process's host
        "randomness": randomness.about(),
        "data": fingerprint,
        "jax": jax.__version__,
        "ddgan_jax": ddgan_jax.__version__,
    }


def record(folder: RunFolder, step: int, fingerprint: str = "") -> None:
    """Append the line to the run folder, which exists. Only the main process calls this.

    Raises UserError if it cannot be written.
    """
    with write_errors(folder.path):
        folder.append_start(describe(step, fingerprint))
