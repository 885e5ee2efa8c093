"""The command line: `ddgan COMMAND --flag=value ...`.

`COMMANDS` describes each command once: its help page, its flags, and the function that runs it.
What a command needs is imported when it runs, so that help and mistakes answer at once. A mistake
of the user is one line on stderr and exit code 2; a traceback is always a bug.
"""

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

import ddgan_jax
from ddgan_jax.arguments import CONFIG_FLAGS, Flag, parse_config, parse_flags, parse_seeds
from ddgan_jax.config import ConfigDict, did_you_mean
from ddgan_jax.errors import UserError

USER_ERROR = 2
INTERRUPTED = 128 + 2  # what shells report after Ctrl-C
PIPE_CLOSED = 128 + 13


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


# ---------------------------------------------------------------------------------- commands


def _train(values: flags.FlagValues, config: ConfigDict) -> None:
    use_compilation_cache()
    from ddgan_jax.train import train

    train(config, values.workdir)


def _sample(values: flags.FlagValues) -> None:
    use_compilation_cache()
    seeds = parse_seeds(values.seeds)
    from ddgan_jax.sampling import sample_command

    sample_command(values.workdir, seeds=seeds, out=values.out, step=values.step)


def _show(values: flags.FlagValues, config: ConfigDict) -> None:
    del values
    from ddgan_jax.show import show

    print(show(config))


def _prepare(values: flags.FlagValues) -> None:
    from ddgan_jax.data.prepare import prepare

    folder = prepare(
        values.dataset,
        data_dir=values.data_dir,
        archive=values.archive,
        images=values.images,
        arrays=values.arrays,
        download=values.download,
    )
    print(f"prepared in {folder}")


COMMANDS = {
    "train": Command(
        summary="train a model; the same command again resumes",
        description=(
            "Train the model that a config describes. The run folder gets the config, metrics,\n"
            "grids of samples and checkpoints. Running the same command again continues from the\n"
            "last checkpoint. `ddgan show` lists the fields of a config."
        ),
        flags=(Flag("workdir", "FOLDER", "run folder, made if it does not exist", required=True),),
        examples=(
            "ddgan train --config=configs/digits_ddgan.py --workdir=runs/digits",
            "ddgan train --config=configs/cifar10_ddgan.py --workdir=runs/cifar10 \\\n"
            "    --config.train.batch_size=128 --config.data.dir=/data/tfds",
        ),
        run=_train,
        takes_config=True,
        when_interrupted="interrupted; the same command continues from the last checkpoint",
    ),
    "sample": Command(
        summary="draw images from a trained model",
        description=(
            "Draw images from a checkpoint of a run folder, with the moving average of the\n"
            "generator's parameters. Each image has a seed: the same seed is the same image,\n"
            "however many are drawn and on whatever devices. Arrays are uint8 of shape\n"
            "(images, height, width, channels)."
        ),
        flags=(
            Flag("workdir", "FOLDER", "run folder of `ddgan train`", required=True),
            Flag("seeds", "LIST", "one image per seed, e.g. 0-63 or 1,5,10-20", "0-63"),
            Flag("out", "PATH", "a grid x.png, an array x.npy, or a folder of PNGs", "grid.png"),
            Flag(
                "step", "N", "train step of the checkpoint; without it the latest", kind="integer"
            ),
        ),
        examples=(
            "ddgan sample --workdir=runs/digits --seeds=0-99 --out=grid.png",
            "ddgan sample --workdir=runs/cifar10 --seeds=0-49999 --out=samples --step=300000",
        ),
        run=_sample,
    ),
    "show": Command(
        summary="explain a config without data or accelerator",
        description=(
            "Print the resolved config, the parameters of each module, FLOPs per image and an\n"
            "estimate of the memory. Needs neither data nor an accelerator."
        ),
        flags=(),
        examples=(
            "ddgan show --config=configs/cifar10_ddgan.py",
            "ddgan show --config=configs/celebahq256_ddgan.py --config.train.batch_size=8",
        ),
        run=_show,
        takes_config=True,
    ),
    "prepare": Command(
        summary="make a data set ready for training",
        description=(
            "Convert a data set to the form that training reads: CIFAR-10 and MNIST from their\n"
            "published archives, a set of your own from a folder of images or an .npz file. Every\n"
            "other set of TFDS is converted by TFDS itself, which needs TensorFlow:\n"
            "pip install 'ddgan-jax[tf]'. What exists already is never overwritten."
        ),
        flags=(
            Flag(
                "dataset",
                "NAME",
                "name of the set: cifar10, mnist, any of TFDS, or your own",
                required=True,
            ),
            Flag(
                "data_dir",
                "FOLDER",
                "where prepared sets lie; without it $TFDS_DATA_DIR or ~/tensorflow_datasets",
                "",
            ),
            Flag("archive", "PATH", "published archive of cifar10 or mnist"),
            Flag("images", "FOLDER", "PNG or JPEG files, one sub-folder per class"),
            Flag(
                "arrays", "FILE", ".npz file with uint8 images (N, H, W, C) and maybe labels (N,)"
            ),
            Flag(
                "download",
                "",
                "fetch the archive of cifar10 or mnist from its publisher",
                False,
                "switch",
            ),
        ),
        examples=(
            "ddgan prepare --dataset=cifar10 --archive=cifar-10-python.tar.gz",
            "ddgan prepare --dataset=flowers --images=photos/flowers --data_dir=/data/tfds",
        ),
        run=_prepare,
    ),
}


# -------------------------------------------------------------------------------- entry point


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. argv: without the program's name."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(argv[0]) if argv else None
    program = f"ddgan {argv[0]}" if command else "ddgan"
    try:
        if command:
            _run(argv[0], command, argv[1:])
        else:
            _without_command(argv)
        sys.stdout.flush()
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{program}: {command.when_interrupted if command else 'stopped'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        return PIPE_CLOSED
    return 0


def _without_command(argv: list[str]) -> None:
    if argv and argv[0] in ("-h", "--help", "help"):
        print(overview())
    elif argv and argv[0] == "--version":
        print(f"ddgan-jax {ddgan_jax.__version__}")
    elif argv:
        nearest = did_you_mean(argv[0], COMMANDS)
        raise UserError(f"unknown command {argv[0]!r}{nearest or '; see ddgan --help'}")
    else:
        raise UserError(f"no command; choose one of {', '.join(COMMANDS)}, see ddgan --help")


def _run(name: str, command: Command, argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print(help_page(name, command))
        return
    # Libraries (Grain's workers) ask absl's own registry of flags, which this program leaves empty.
    flags.FLAGS.mark_as_parsed()
    if command.takes_config:
        values, overrides = parse_flags(f"ddgan {name}", CONFIG_FLAGS + command.flags, argv)
        command.run(values, parse_config(values.config, overrides))
    else:
        values, _ = parse_flags(f"ddgan {name}", command.flags, argv)
        command.run(values)


def _stdout_is_closed() -> bool:
    """Whether the reader of our output went away, as `ddgan ... | head` does."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except BrokenPipeError:
        # The interpreter flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def use_compilation_cache() -> None:
    """Let JAX keep compiled programs on disk; call before jax is imported.

    They lie in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/ddgan_jax/jax, and are found
    again by the next run with the same config and devices: it starts in seconds. Everything is
    kept however fast it compiled. JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "ddgan_jax" / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


# --------------------------------------------------------------------------------- help pages


def overview() -> str:
    """What `ddgan --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Denoising diffusion GANs in JAX.",
            "",
            "Usage: ddgan COMMAND [--flag=value ...]",
            "",
            "Commands:",
            *lines,
            "",
            "`ddgan COMMAND --help` explains a command. To begin, train on handwritten digits",
            "(minutes on a laptop) and draw images:",
            "",
            f"  {COMMANDS['train'].examples[0]}",
            f"  {COMMANDS['sample'].examples[0]}",
        ]
    )


def help_page(name: str, command: Command) -> str:
    """What `ddgan NAME --help` prints."""
    all_flags = (CONFIG_FLAGS if command.takes_config else ()) + command.flags
    required = " ".join(f"--{f.name}={f.value}" for f in all_flags if f.required)
    spelled = [f"--{f.name}" + (f"={f.value}" if f.value else "") for f in all_flags]
    width = max(map(len, spelled)) + 2
    return "\n".join(
        [
            command.description,
            "",
            f"Usage: ddgan {name} {required} [--flag=value ...]",
            "",
            "Flags:",
            *(
                f"  {s:<{width}}{f.help}{_remark(f)}"
                for s, f in zip(spelled, all_flags, strict=True)
            ),
            "",
            "Examples:",
            *(textwrap.indent(example, "  ") for example in command.examples),
        ]
    )


def _remark(flag: Flag) -> str:
    if flag.required:
        return " (required)"
    return f" (default {flag.default})" if flag.default else ""
