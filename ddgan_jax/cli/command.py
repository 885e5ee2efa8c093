"""Describe a command, and declare the flags that several commands share."""

from collections.abc import Callable
from typing import NamedTuple

from absl.flags import FlagValues

from ddgan_jax import progress
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.config import MOST_TIMESTEPS, ConfigDict
from ddgan_jax.files.locks import output_file


class Command(NamedTuple):
    """One command and the contents of its help page.

    run: the function that is called with the parsed flags, and with the config if takes_config.
    config_without_file: makes the config from the parsed flags where --config is not given, or
    raises UserError; None if the flag is required.
    words: what the command takes instead of flags, such as "[NAME]", for its help page: `run` gets
    the arguments as they were typed.
    when_interrupted: how to go on after Ctrl-C, for the message.
    """

    summary: str
    description: str
    flags: tuple[Flag, ...]
    examples: tuple[str, ...]
    run: Callable[..., None]
    takes_config: bool = False
    config_without_file: Callable[[FlagValues], ConfigDict] | None = None
    words: str = ""
    when_interrupted: str = "the same command begins anew"


def into_file(run: Callable[..., None], *suffixes: str) -> Callable[..., None]:
    """Return a function for `Command.run` that locks the file --out while `run` writes it.

    run: called with the flags and the path. suffixes: the endings that the file's name may have.
    A command with this function has the flag FORCE.
    """

    def held(values: FlagValues) -> None:
        # The lock is taken before the work begins, since finding out after minutes that the file
        # cannot be written would cost the result.
        with (
            output_file(values.out, *suffixes, force=values.force) as out,
            progress.phase(f"making {out.name}"),
        ):
            run(values, out)

    return held


# Flags with one meaning in all commands are declared once, so that their help pages agree.
WORKDIR = Flag("workdir", "FOLDER", "run folder of `ddgan train`")
EXPORT = Flag("export", "FOLDER", "an export of `ddgan export`, hf://user/repository, or digits")
STEP = Flag("step", "N", "train step of the checkpoint; without it the latest", kind="integer")
DENOISING_STEPS = Flag(
    "denoising_steps",
    "N",
    "not as many as in training; for schedule 'cosine'",
    0,
    "integer",
    at_most=MOST_TIMESTEPS,
)
FORCE = Flag("force", "", "replace the file even if ddgan did not write it", False, "switch")
DATA_DIR = Flag(
    "data_dir",
    "FOLDER",
    "prepared data sets; without it $TFDS_DATA_DIR or ~/tensorflow_datasets",
    "",
)
