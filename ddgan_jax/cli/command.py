"""What a command is, and the flags that several have."""

from collections.abc import Callable
from typing import NamedTuple

from absl import flags

from ddgan_jax.cli.arguments import Flag
from ddgan_jax.config import MOST_TIMESTEPS
from ddgan_jax.files.locks import output_file


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


def into_file(run: Callable[..., None], *suffixes: str) -> Callable[..., None]:
    """Return a command that holds the file of its --out, which `run` gets as its second argument.

    suffixes: with which the file's name must end.
    """

    def held(values: flags.FlagValues) -> None:
        with output_file(values.out, *suffixes, what="--out") as out:
            run(values, out)

    return held


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
