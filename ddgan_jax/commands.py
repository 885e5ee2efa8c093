"""The commands of `ddgan`, each described once: its help page, its flags, what runs it.

What a command needs is imported when it runs, so that help and mistakes answer at once.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import flags

from ddgan_jax.arguments import Flag, parse_integers, parse_labels, parse_names, parse_seeds
from ddgan_jax.config import ConfigDict


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


def _train(values: flags.FlagValues, config: ConfigDict) -> None:
    use_compilation_cache()
    from ddgan_jax import hosts

    hosts.join(
        values.coordinator,
        values.num_processes,
        values.process_id,
        peer_timeout=values.peer_timeout,
    )
    from ddgan_jax.train import train

    train(config, values.workdir)


def _sample(values: flags.FlagValues) -> None:
    use_compilation_cache()
    seeds, labels = parse_seeds(values.seeds), parse_labels(values.labels)
    from ddgan_jax.sampling import sample_command

    sample_command(
        values.workdir,
        seeds=seeds,
        labels=labels,
        out=values.out,
        step=values.step,
        num_steps=values.denoising_steps,
    )


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


def _mog25(values: flags.FlagValues) -> None:
    use_compilation_cache()
    from ddgan_jax.experiments import mog25, mog25_cells

    mog25.run(
        values.out,
        methods=parse_names("methods", values.methods, mog25_cells.METHODS),
        steps=parse_integers("steps", values.steps),
        seeds=parse_seeds(values.seeds),
        setting=values.setting,
        iterations=values.iterations,
    )


# TPU pods, SLURM and Open MPI say all this themselves.
HOST_FLAGS = (
    Flag("coordinator", "HOST:PORT", "of process 0, for a job of several processes"),
    Flag("num_processes", "N", "of the job, with --coordinator", kind="integer"),
    Flag("process_id", "I", "of this process, 0 to N - 1, with --coordinator", kind="integer"),
    Flag("peer_timeout", "SECONDS", "within which a lost peer ends this one", 120, "integer"),
)

COMMANDS = {
    "train": Command(
        summary="train a model; the same command again resumes",
        description=(
            "Train the model that a config describes. The run folder gets the config, metrics,\n"
            "grids of samples and checkpoints. Running the same command again continues from the\n"
            "last checkpoint. `ddgan show` lists the fields of a config."
        ),
        flags=(
            Flag("workdir", "FOLDER", "run folder, made if it does not exist", required=True),
            *HOST_FLAGS,
        ),
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
            Flag(
                "labels",
                "LIST",
                "classes, each with every seed: 207,88 or all; without it they take turns",
                "",
            ),
            Flag("out", "PATH", "a grid x.png, an array x.npy, or a folder of PNGs", "grid.png"),
            Flag(
                "step", "N", "train step of the checkpoint; without it the latest", kind="integer"
            ),
            Flag(
                "denoising_steps",
                "N",
                "another number than in training; schedule 'cosine' only",
                0,
                "integer",
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
    "experiment mog25": Command(
        summary="the 25-Gaussian table of the SIDDM paper",
        description=(
            "Train cells of Table 1 of the SIDDM paper, all seeds of a cell at once, and write a\n"
            "table (mean and spread over the seeds) beside the paper's numbers, the same as JSON,\n"
            "and a scatter picture of each cell. Cells that --out holds already are kept.\n"
            'Setting "paper" is that of the authors, a matter for an accelerator; "reduced"\n'
            "(rescaled data, other learning rates, fewer and smaller iterations) takes\n"
            "minutes on a CPU."
        ),
        flags=(
            Flag("out", "FOLDER", "where the table goes", required=True),
            Flag("methods", "LIST", "of gan, ddgan, siddm, siddm_no_afd", "ddgan,siddm"),
            Flag("steps", "LIST", "columns: denoising steps T", "4"),
            Flag("seeds", "LIST", "e.g. 0-4", "0"),
            Flag("setting", "NAME", "reduced or paper", "reduced"),
            Flag("iterations", "N", "another number than the setting's", 0, "integer"),
        ),
        examples=(
            "ddgan experiment mog25 --methods=siddm --steps=4 --out=runs/mog25",
            "ddgan experiment mog25 --setting=paper --methods=gan,ddgan,siddm,siddm_no_afd \\\n"
            "    --steps=2,4,8,16 --seeds=0-4 --out=runs/table1",
        ),
        run=_mog25,
    ),
}


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
