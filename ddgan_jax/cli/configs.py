"""Declare the commands that explain configs: show."""

from absl import flags

from ddgan_jax.cli.command import Command
from ddgan_jax.config import ConfigDict


def _show(values: flags.FlagValues, config: ConfigDict) -> None:
    # A command gets its flags in any case, and this one has none of its own.
    del values
    from ddgan_jax.inspect_config import show

    print(show(config))


COMMANDS = {
    "show": Command(
        summary="explain a config without data or accelerator",
        description=(
            "Print the resolved config, the parameters of each module, FLOPs per image and an\n"
            "estimate of the memory. Needs neither data nor an accelerator."
        ),
        flags=(),
        examples=(
            "ddgan show --config=cifar10_ddgan",
            "ddgan show --config=celebahq256_ddgan --config.train.batch_size=8",
        ),
        run=_show,
        takes_config=True,
    ),
}
