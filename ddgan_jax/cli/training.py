"""Declare the commands of training, and those before it: train, show, prepare, experiment."""

from absl import flags

from ddgan_jax import compiler
from ddgan_jax.cli import messages
from ddgan_jax.cli.arguments import Flag, parse_integers, parse_names, parse_seeds
from ddgan_jax.cli.command import DATA_DIR, Command
from ddgan_jax.config import ConfigDict


def _train(values: flags.FlagValues, config: ConfigDict) -> None:
    compiler.keep_programs(values.workdir)
    from ddgan_jax.training import hosts

    # The processes of a job must have joined before anything asks JAX for its devices, which
    # `train` does.
    hosts.join(
        values.coordinator,
        values.num_processes,
        values.process_id,
        peer_timeout=values.peer_timeout,
    )
    from ddgan_jax.training.loop import train
    from ddgan_jax.training.stopping import SignalledStop

    train(
        config,
        values.workdir,
        # A signal ends the run after the current step, with a checkpoint.
        stop=SignalledStop(),
        allow_changed_data=values.allow_changed_data,
    )


def _show(values: flags.FlagValues, config: ConfigDict) -> None:
    # A command gets its flags in any case, and this one has none of its own.
    del values
    from ddgan_jax.inspect_config import show

    print(show(config))


def _prepare(values: flags.FlagValues) -> None:
    from ddgan_jax.data.prepare.prepare import prepare

    folder = prepare(
        values.dataset,
        data_dir=values.data_dir,
        archive=values.archive,
        images=values.images,
        arrays=values.arrays,
        download=values.download,
        allow_unpublished=values.allow_unpublished,
        warn=messages.reporter(values),
    )
    print(f"prepared in {folder}")


def _mog25(values: flags.FlagValues) -> None:
    compiler.keep_programs()
    from ddgan_jax.experiments import mog25, mog25_cells

    mog25.run(
        values.out,
        methods=parse_names("methods", values.methods, mog25_cells.METHODS),
        steps=parse_integers("steps", values.steps),
        # All seeds of a cell are trained side by side and are in memory at the same time.
        seeds=parse_seeds(values.seeds, most=1_000),
        setting=values.setting,
        iterations=values.iterations,
    )


# On TPU pods, with SLURM and with Open MPI the processes find each other without these flags.
HOST_FLAGS = (
    Flag("coordinator", "HOST:PORT", "address of process 0, in a job of several processes"),
    Flag(
        "num_processes",
        "N",
        "processes in the job, with --coordinator",
        kind="integer",
        at_least=1,
        at_most=1_000_000,
    ),
    Flag(
        "process_id", "I", "number of this process, 0 to N - 1, with --coordinator", kind="integer"
    ),
    Flag(
        "peer_timeout",
        "SECONDS",
        "after which a lost process ends this one",
        120,
        "integer",
        at_least=1,
        at_most=86_400,
    ),
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
            Flag(
                "allow_changed_data",
                "",
                "resume although the data set has changed since the run began",
                False,
                "switch",
            ),
        ),
        examples=(
            "ddgan train --config=configs/digits_ddgan.py --workdir=runs/digits",
            "ddgan train --config=configs/cifar10_ddgan.py --workdir=runs/cifar10 \\\n"
            "    --config.train.batch_size=128 --config.data.dir=/data/tfds",
        ),
        run=_train,
        takes_config=True,
        when_interrupted="the same command continues from the last checkpoint",
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
            "published archives, a set of your own from a folder of images, in which train, val\n"
            "and test are splits, or from an .npz file. Every other set of TFDS is converted by\n"
            "TFDS itself, which needs TensorFlow: pip install 'ddgan-jax[tf]'. What exists is\n"
            "never overwritten."
        ),
        flags=(
            Flag(
                "dataset",
                "NAME",
                "name of the set: cifar10, mnist, any of TFDS, or your own",
                required=True,
            ),
            DATA_DIR,
            Flag("archive", "PATH", "published archive of cifar10 or mnist"),
            Flag(
                "images",
                "FOLDER",
                "folder or .zip of image files; sub-folders or dataset.json label them",
            ),
            Flag(
                "arrays",
                "FILE",
                ".npz or .npy file of uint8 images (N, H, W, C), with labels (N,) or without",
            ),
            Flag(
                "download",
                "",
                "fetch the archive of cifar10 or mnist from its publisher",
                False,
                "switch",
            ),
            Flag(
                "allow_unpublished",
                "",
                "use an --archive that is not the published one",
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
            Flag("out", "FOLDER", "folder of the table and the pictures", required=True),
            Flag(
                "methods",
                "LIST",
                "rows of the table, e.g. gan,ddgan,siddm,siddm_no_afd",
                "ddgan,siddm",
            ),
            Flag("steps", "LIST", "columns of the table: denoising steps T", "4"),
            Flag("seeds", "LIST", "seeds of each cell, e.g. 0-4", "0"),
            Flag("setting", "NAME", "size of the experiment: reduced or paper", "reduced"),
            Flag(
                "iterations", "N", "train steps of each cell; 0: as the setting says", 0, "integer"
            ),
        ),
        examples=(
            "ddgan experiment mog25 --methods=siddm --steps=4 --out=runs/mog25",
            "ddgan experiment mog25 --setting=paper --methods=gan,ddgan,siddm,siddm_no_afd \\\n"
            "    --steps=2,4,8,16 --seeds=0-4 --out=runs/table1",
        ),
        run=_mog25,
    ),
}
