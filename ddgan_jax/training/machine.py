"""Record each start of a run, its devices, versions and data set, as a line of machine.jsonl.

The data set is recorded by its fingerprint, and a run refuses to resume with another one. It would
end with other parameters, and nobody would know why.
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
    """Refuse a data set that differs from the one of the run's last start.

    fingerprint: made by `data.fingerprint`. allow_changed: warn instead. Raises UserError.
    """
    # Versions before the fingerprint recorded no data set: there is nothing to compare with.
    known = [start.data for start in folder.read_starts(report=warn) if start.data]
    # The last start counts, because a change that was allowed once is not reported again.
    if not known or known[-1] == fingerprint:
        return
    if not allow_changed:
        raise UserError(
            f"the data set is not what it was when {shown(folder.path, 300)} was trained last (its "
            "images, labels or number changed): put it back, or allow it with `allow_changed_data`"
        )
    warn("the data set has changed since this run was trained last")


def describe(step: int, fingerprint: str = "") -> dict[str, Any]:
    """Return this job's devices, versions and data set, in values that JSON can hold.

    step: train steps done before this start. fingerprint: made by `data.fingerprint`.
    """
    devices = distributed.all_devices()
    return {
        "step": step,
        "time": round(time.time(), 3),
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "platform": devices[0].platform,
        "processes": jax.process_count(),
        # The cores of the main process's host.
        "cores": os.cpu_count(),
        # The settings that decide which image a seed gives.
        "randomness": randomness.about(),
        "data": fingerprint,
        "jax": jax.__version__,
        "ddgan_jax": ddgan_jax.__version__,
    }


def record(folder: RunFolder, step: int, fingerprint: str = "") -> None:
    """Append the line of this start to the run folder, which exists. The main process calls this.

    Raises UserError if it cannot be written.
    """
    with write_errors(folder.path):
        folder.append_start(describe(step, fingerprint))
