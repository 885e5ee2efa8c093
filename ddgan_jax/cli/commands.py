"""The commands of `ddgan`, each described once: its help page, its flags, what runs it.

What a command needs is imported when it runs, so that help and mistakes answer at once.
"""

from ddgan_jax.cli import evaluation, figures, models, training
from ddgan_jax.cli.command import Command

__all__ = ["COMMANDS", "Command"]

_ALL = training.COMMANDS | models.COMMANDS | evaluation.COMMANDS | figures.COMMANDS
# As people meet them: `ddgan --help` lists them in this order.
_FIRST = ("train", "sample", "show", "prepare", "export")
COMMANDS = {name: _ALL[name] for name in (*_FIRST, *sorted(set(_ALL) - set(_FIRST)))}
