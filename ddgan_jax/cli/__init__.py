"""The command line, `ddgan COMMAND --flag=value ...`: flags, help pages, messages, exit codes."""

from ddgan_jax.cli.program import main

__all__ = ["main"]
