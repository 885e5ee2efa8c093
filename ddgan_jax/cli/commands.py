"""The table of all commands of `ddgan`.

Each is described in one of the modules below. A command imports the libraries that it needs when it
runs, so that help pages and messages about wrong flags appear at once.
"""

from ddgan_jax.cli import evaluation, figures, models, training
from ddgan_jax.cli.command import Command

__all__ = ["COMMANDS", "Command"]

_ALL = training.COMMANDS | models.COMMANDS | evaluation.COMMANDS | figures.COMMANDS
# `ddgan --help` lists the commands in the order in which a new user meets them.
_FIRST = ("train", "sample", "show", "prepare", "export")
COMMANDS = {name: _ALL[name] for name in (*_FIRST, *sorted(set(_ALL) - set(_FIRST)))}
