"""Run the command line `ddgan COMMAND --flag=value ...`: flags, help, messages, exit codes."""

from ddgan_jax.cli.program import main

__all__ = ["main"]
