"""Write the reference of all commands, docs/commands.md, from their declarations.

    python -m ddgan_jax.cli.reference > docs/commands.md

A test compares the page in docs/ with the one that this module writes.
"""

from ddgan_jax.cli import help_pages
from ddgan_jax.cli.commands import COMMANDS, Command

_HEAD = """\
# Commands

Written by `python -m ddgan_jax.cli.reference` from what `ddgan COMMAND --help` prints, too.

Flags are spelled with hyphens or underscores. A mistake is one line, which says what to do, and
exit code 2; code 75 means that the same command will work later, 130 that Ctrl-C was pressed.
"""


def page() -> str:
    """Return the reference as Markdown: what each command does, its flags, its examples."""
    return "\n".join([_HEAD, *(_section(name, command) for name, command in COMMANDS.items())])


def _section(name: str, command: Command) -> str:
    parts = [f"## ddgan {name}", command.description]
    if command.words:
        parts.append(f"    ddgan {name} {command.words}")
    if rows := help_pages.flag_rows(command):
        # A bar would end a cell of the table.
        cells = [(flag, meaning.replace("|", "\\|")) for flag, meaning in rows]
        lines = [f"| `{flag}` | {meaning} |" for flag, meaning in cells]
        parts.append("\n".join(["| flag | meaning |", "|---|---|", *lines]))
    examples = "\n".join(command.examples)
    return "\n\n".join([*parts, f"```sh\n{examples}\n```"]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
