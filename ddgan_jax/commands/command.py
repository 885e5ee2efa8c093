"""What a command is, the flags that several have, and where compiled programs are kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ddgan_jax.arguments import Flag
from ddgan_jax.files import is_bucket


class Command(NamedTuple):
    """One command, and everything that its help page says.

    run: called with the parsed flags, and with the config if the command takes one.
    """

    summary: str
    description: str
    flags: tuple[Flag, ...]
    examples: tuple[str, ...]
    run: Callable[..., None]
    takes_config: bool = False
    when_interrupted: str = "interrupted"


WORKDIR = Flag("workdir", "FOLDER", "run folder of `ddgan train`")
EXPORT = Flag("export", "FOLDER", "of `ddgan export`, or hf://user/repository")
STEP = Flag("step", "N", "train step of the checkpoint; without it the latest", kind="integer")
DENOISING_STEPS = Flag(
    "denoising_steps", "N", "another number than in training; schedule 'cosine' only", 0, "integer"
)
DATA_DIR = Flag(
    "data_dir",
    "FOLDER",
    "of prepared sets; without it $TFDS_DATA_DIR or ~/tensorflow_datasets",
    "",
)


def use_compilation_cache(workdir: str = "") -> None:
    """Let JAX keep compiled programs; call before jax is imported.

    They lie in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/ddgan_jax/jax, and are found
    again by the next run with the same config and devices: it starts in seconds. With a run folder
    in a bucket they lie in WORKDIR/jax_cache: only the first host of a pod writes them, and all may
    be new after a preemption. Everything is kept however fast it compiled.
    JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = f"{workdir}/jax_cache" if is_bucket(workdir) else str(home / "ddgan_jax" / "jax")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
