"""What a run is trained on: a line of WORKDIR/machine.jsonl whenever it starts or goes on."""

import json
import os
import time

import jax
from etils import epath

import ddgan_jax
from ddgan_jax.files.atomic import append_line, write_errors

FILE = "machine.jsonl"


def machine_line(step: int) -> str:
    """This job's devices and versions as one line of JSON. step: train steps done before it."""
    devices = jax.devices()
    return json.dumps(
        {
            "step": step,
            "time": round(time.time(), 3),
            "devices": len(devices),
            "device_kind": devices[0].device_kind,
            "platform": devices[0].platform,
            "processes": jax.process_count(),
            "cores": os.cpu_count(),  # of this process's host
            "jax": jax.__version__,
            "ddgan_jax": ddgan_jax.__version__,
        }
    )


def record(run_dir: str | os.PathLike, step: int) -> None:
    """Appends the line to the run folder, which exists. To be called by one process.

    Raises UserError if it cannot be written.
    """
    with write_errors(run_dir):
        append_line(epath.Path(run_dir) / FILE, machine_line(step))
