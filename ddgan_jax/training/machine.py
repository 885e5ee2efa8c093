"""What a run is trained on: a line of WORKDIR/machine.jsonl whenever it starts or goes on.

Beside the devices that is the data set, by its fingerprint: a run that goes on with other images
than before would end elsewhere, and nobody would know why.
"""

import functools
import json
import os
import sys
import time

import jax
from etils import epath

import ddgan_jax
from ddgan_jax import distributed, randomness
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import run_logs
from ddgan_jax.files.atomic import append_line, write_errors


def check_same_data(
    run_dir: str | os.PathLike, fingerprint: str, *, allow_changed: bool = False
) -> None:
    """Refuse a data set that is not the one with which the run went on last.

    fingerprint: of `data.fingerprint`. allow_changed: only say so. Raises UserError.
    """
    starts = run_logs.read_starts(run_dir, report=functools.partial(print, file=sys.stderr))
    known = [start.data for start in starts if start.data]
    if not known or known[-1] == fingerprint:
        return
    if not allow_changed:
        raise UserError(
            f"the data set is not what it was when {shown(run_dir, 300)} was trained last (its "
            "images, labels or number changed): put it back, or allow it with allow_changed_data"
        )
    print("the data set has changed since this run was trained last", file=sys.stderr)


def machine_line(step: int, fingerprint: str = "") -> str:
    """Return this job's devices, versions and data set as one line of JSON.

    step: train steps done before it. fingerprint: of `data.fingerprint`.
    """
    devices = distributed.all_devices()
    return json.dumps(
        {
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
    )


def record(run_dir: str | os.PathLike, step: int, fingerprint: str = "") -> None:
    """Append the line to the run folder, which exists. To be called by one process.

    Raises UserError if it cannot be written.
    """
    with write_errors(run_dir):
        append_line(epath.Path(run_dir) / run_logs.MACHINES, machine_line(step, fingerprint))
