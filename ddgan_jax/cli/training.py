"""Declare the command that trains: train."""

from absl import flags

from ddgan_jax import compiler
from ddgan_jax.cli.arguments import Flag, config_is_missing
from ddgan_jax.cli.command import Command
from ddgan_jax.config import ConfigDict, run_config
from ddgan_jax.errors import shown
from ddgan_jax.files import foreign
from ddgan_jax.files.paths import run_folder_path
from ddgan_jax.files.run_folder import RunFolder


def _config_of_run(values: flags.FlagValues) -> ConfigDict:
    """Return the config of the run in --workdir, which goes on. Raises UserError if none is there.

    Each process of a job reads it for itself.
    """
    folder = RunFolder(run_folder_path(values.workdir))
    with foreign.reading(folder.path, "run folder"):
        is_run = folder.config.exists()
    if not is_run:
        raise config_is_missing(f", and {shown(folder.path, 300)} holds no run to go on with")
    # `train` reads it once more, and tells the user if it is damaged.
    return run_config.read_config(folder, report=lambda _: None)


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
        profile=values.profile,
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
            "last checkpoint; then --config may be left out, since the run folder has the config.\n"
            "`ddgan show` lists the fields of a config."
        ),
        flags=(
            Flag("workdir", "FOLDER", "run folder, made if it does not exist", required=True),
            *HOST_FLAGS,
            Flag(
                "profile",
                "N",
                "trace N steps with JAX's profiler, into FOLDER/profile",
                0,
                "integer",
                at_least=0,
                at_most=1000,
            ),
            Flag(
                "allow_changed_data",
                "",
                "resume although the data set has changed since the run began",
                False,
                "switch",
            ),
        ),
        examples=(
            "ddgan train --config=digits_ddgan --workdir=runs/digits",
            "ddgan train --config=cifar10_ddgan --workdir=runs/cifar10 \\\n"
            "    --config.train.batch_size=128 --config.data.dir=/data/tfds",
            "ddgan train --workdir=runs/cifar10 --config.train.num_steps=500000",
        ),
        run=_train,
        takes_config=True,
        config_without_file=_config_of_run,
        when_interrupted="the same command continues from the last checkpoint",
    ),
}
