"""List all commands of `ddgan` in one table.

Each is described in one of the modules below. A command imports the libraries that it needs when it
runs, so that help pages and messages about wrong flags appear at once.
"""

from ddgan_jax.cli import (
    checking,
    completion,
    configs,
    data,
    evaluation,
    experiments,
    figures,
    launchers,
    models,
    reports,
    training,
)
from ddgan_jax.cli.command import Command

__all__ = ["COMMANDS", "Command"]

_ROOMS = (
    *(training, configs, checking, launchers, data, models),
    *(evaluation, figures, reports, experiments, completion),
)
_ALL = {name: command for room in _ROOMS for name, command in room.COMMANDS.items()}
# `ddgan --help` lists the commands in the order in which a new user meets them.
_FIRST = ("train", "sample", "configs", "show", "prepare", "export", "check", "launch")
COMMANDS = {name: _ALL[name] for name in (*_FIRST, *sorted(set(_ALL) - set(_FIRST)))}
