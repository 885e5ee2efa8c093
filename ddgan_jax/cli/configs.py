"""Declare the commands that explain configs: show, configs."""

from absl import flags

from ddgan_jax.cli import help_pages
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.cli.command import Command
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.files import load_config, shipped_configs


def _show(values: flags.FlagValues, config: ConfigDict) -> None:
    from ddgan_jax.inspection import page

    parts = page.Parts(
        modules=values.modules,
        costs=values.costs,
        memory=values.memory,
        all_fields=values.all,
        base=load_config(values.base) if values.base else None,
    )
    if values.json:
        print(page.as_json(config, parts))
        return
    for part in page.page(config, parts, help_pages.width()):
        # What is known already is shown while the rest is counted.
        print(part, flush=True)


def _configs(values: flags.FlagValues) -> None:
    # A command gets its flags in any case, and this one has none of its own.
    del values
    print("\n".join(help_pages.table(shipped_configs().items())))


COMMANDS = {
    "show": Command(
        summary="explain a config without data or accelerator",
        description=(
            "Print what a config trains, on what and how, the parameters of its networks, and the "
            "fields that differ from the base config with their units and meanings. Needs neither "
            "data nor an accelerator."
        ),
        flags=(
            Flag("base", "NAME", "compare with this config instead of the base config", ""),
            Flag("all", "", "explain every field", False, "switch"),
            Flag("modules", "", "add the parameters of each module", False, "switch"),
            Flag("costs", "", "add FLOPs per image, in about 10 seconds", False, "switch"),
            Flag("memory", "", "add the memory of a device, in about 10 seconds", False, "switch"),
            Flag("json", "", "print one JSON object instead", False, "switch"),
        ),
        examples=(
            "ddgan show --config=cifar10_ddgan",
            "ddgan show --config=digits_siddm --base=digits_ddgan",
            "ddgan show --config=celebahq256_ddgan --config.train.batch_size=8 --costs --memory",
        ),
        run=_show,
        takes_config=True,
    ),
    "configs": Command(
        summary="list the configs that come with the program",
        description=(
            "List the configs that --config takes by name, with what each of them trains. Behind a "
            "colon stands its argument: cifar10_ddgan:tiny trains two steps, as a first try."
        ),
        flags=(),
        examples=("ddgan configs",),
        run=_configs,
    ),
}
