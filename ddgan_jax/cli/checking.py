"""Declare the command that looks for mistakes before a run: check."""

from absl import flags

from ddgan_jax.cli import training
from ddgan_jax.cli.arguments import Flag, config_is_missing
from ddgan_jax.cli.command import Command
from ddgan_jax.cli.messages import reporter
from ddgan_jax.config import ConfigDict

_TRAIN = training.COMMANDS["train"]


def _check(values: flags.FlagValues, config: ConfigDict) -> None:
    from ddgan_jax.inspection.run_check import check_run

    for line in check_run(
        config,
        values.workdir or "",
        devices=values.devices,
        memory_gib=values.memory_gib,
        opens_data=not values.no_data,
        elsewhere=values.elsewhere,
        report=reporter(values),
    ):
        print(line, flush=True)


def _config_of_run(values: flags.FlagValues) -> ConfigDict:
    if not values.workdir:
        raise config_is_missing()
    assert _TRAIN.config_without_file is not None
    return _TRAIN.config_without_file(values)


COMMANDS = {
    "check": Command(
        summary="look for mistakes in a run before a machine is asked for",
        description=(
            "Check what `ddgan train` with the same flags would refuse: the config, the batch on "
            "each device, a run folder of another config, the data set, and whether training fits "
            "a device's memory by an upper estimate. The exit code is 2 for the first mistake. "
            "Nothing is trained. All launchers do this before they ask for a machine."
        ),
        flags=(
            Flag("devices", "N", "accelerators of all hosts; 0: not known yet", 0, "integer"),
            Flag(
                "memory_gib",
                "N",
                "memory of each; 0: no estimate, which takes about 10 seconds",
                0,
                "integer",
                at_most=100_000,
            ),
            Flag("no_data", "", "do not open the data set", False, "switch"),
            Flag(
                "elsewhere",
                "",
                "the run is for other machines: what is not on this one is no mistake",
                False,
                "switch",
            ),
            *(flag._replace(required=False) for flag in _TRAIN.flags),
        ),
        examples=(
            "ddgan check --config=digits_ddgan",
            "ddgan check --config=cifar10_ddgan --devices=16 --memory-gib=16 --no-data",
        ),
        run=_check,
        takes_config=True,
        config_without_file=_config_of_run,
        when_interrupted="nothing was changed",
    ),
}
