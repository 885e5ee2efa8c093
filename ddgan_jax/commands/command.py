"""What a command is, and the flags that several have."""

from collections.abc import Callable
from typing import NamedTuple

from ddgan_jax.arguments import Flag
from ddgan_jax.config import MOST_TIMESTEPS


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
    when_interrupted: str = "the same command begins anew"


WORKDIR = Flag("workdir", "FOLDER", "run folder of `ddgan train`")
EXPORT = Flag("export", "FOLDER", "of `ddgan export`, or hf://user/repository")
STEP = Flag("step", "N", "train step of the checkpoint; without it the latest", kind="integer")
DENOISING_STEPS = Flag(
    "denoising_steps",
    "N",
    "another number than in training; schedule 'cosine' only",
    0,
    "integer",
    at_most=MOST_TIMESTEPS,
)
DATA_DIR = Flag(
    "data_dir",
    "FOLDER",
    "of prepared sets; without it $TFDS_DATA_DIR or ~/tensorflow_datasets",
    "",
)
