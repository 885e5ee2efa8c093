"""Declare the command that starts a launcher of launch/: launch."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import ddgan_jax
from ddgan_jax.cli import help_pages
from ddgan_jax.cli.command import Command
from ddgan_jax.errors import UserError, did_you_mean, shown

# A link in a checkout, where the scripts find what lies beside the folder that it leads to.
FOLDER = (Path(ddgan_jax.__file__).parent / "launch").resolve()
# By name: the script, and the machines on which it trains.
LAUNCHERS = {
    "slurm": ("slurm.sh", "GPU nodes under Slurm"),
    "tpu-pod": ("tpu_pod.sh", "Cloud TPU pod slices v4 to v6e, from a checkout"),
    "gke-jobset": ("gke_jobset.py", "TPU slices of a GKE cluster"),
    "gpu-local": ("gpu_local.sh", "the GPUs of this machine, again after a crash"),
    "local-pod": ("local_pod.py", "this machine's CPU, as if it were a pod: a rehearsal"),
}


def _launch(argv: Sequence[str]) -> None:
    if not argv:
        print("\n".join(help_pages.table((n, words) for n, (_, words) in LAUNCHERS.items())))
        print("\n`ddgan launch NAME --help` explains one.")
        return
    typed, *arguments = argv
    # The name of the script is taken as well.
    name = typed.rpartition(".")[0] or typed
    name = name.replace("_", "-")
    if name not in LAUNCHERS:
        nearest = did_you_mean(name, LAUNCHERS) or f"; known: {', '.join(LAUNCHERS)}"
        raise UserError(f"no launcher {shown(repr(typed))}{nearest}")
    script = FOLDER / LAUNCHERS[name][0]
    program = sys.executable if script.suffix == ".py" else shutil.which("bash")
    if program is None:
        raise UserError(f"{script.name} needs bash, which is not on PATH")
    sys.stdout.flush()
    sys.stderr.flush()
    # The launcher takes the place of this process: signals and the exit code are its own.
    os.execv(program, [program, os.fspath(script), *arguments])


COMMANDS = {
    "launch": Command(
        summary="start a training on a cluster, a TPU pod or the GPUs of this machine",
        description=(
            "Start one of the launchers, each for one kind of machine; without a name list them. "
            "They check the run before they ask for a machine, and the same command again goes on "
            "from the last checkpoint. With --dry-run they print their commands."
        ),
        flags=(),
        words="[NAME [VERB] [--flag=value ...]]",
        examples=(
            "ddgan launch slurm --help",
            "ddgan launch slurm train --dry-run --nodes=2 --gpus-per-node=8 "
            "--config=cifar10_ddgan --workdir=runs/cifar10",
        ),
        run=_launch,
    ),
}
