"""Lay out the help pages of `ddgan` for the width of the terminal."""

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence

from ddgan_jax.cli.arguments import CONFIG_FLAGS, Flag
from ddgan_jax.cli.commands import COMMANDS, Command
from ddgan_jax.config import LARGEST

NARROWEST, WIDEST = 40, 100  # columns
# A column of text that is narrower than this is hard to read.
_READABLE = 36
# Spaces within quotes, where no line may be broken.
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_UNBROKEN = "\0"


def width() -> int:
    """Return the columns of the terminal, 80 if there is none, within what is legible."""
    return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)


def overview() -> str:
    """Return the page that `ddgan --help` prints."""
    return "\n".join(
        [
            "Denoising diffusion GANs in JAX.",
            "",
            "Usage: ddgan COMMAND [--flag=value ...]",
            "",
            "Commands:",
            *table((name, command.summary) for name, command in COMMANDS.items()),
            "",
            *paragraphs(
                "`ddgan COMMAND --help` explains a command. To begin, train on handwritten digits "
                "(minutes on a laptop), and draw from a model that comes with the program:"
            ),
            "",
            *_example(COMMANDS["train"].examples[0]),
            *_example(COMMANDS["sample"].examples[0]),
        ]
    )


def groups() -> dict[str, list[str]]:
    """Return the commands of two words by their first word, such as "figure"."""
    firsts = {name.split()[0]: [] for name in COMMANDS if " " in name}
    return {first: [n for n in COMMANDS if n.startswith(f"{first} ")] for first in firsts}


def group_page(first: str) -> str:
    """Return the page about all commands that begin with a word, such as "figure"."""
    names = groups()[first]
    return "\n".join(
        [
            *_wrap(f"Usage: ddgan {first} NAME [--flag=value ...]", hanging="    "),
            "",
            "Commands:",
            *table((name, COMMANDS[name].summary) for name in names),
            "",
            *paragraphs(f"`ddgan {first} NAME --help` explains one."),
        ]
    )


def help_page(name: str, command: Command) -> str:
    """Return the page that `ddgan NAME --help` prints."""
    required = [_spelled(flag) for flag in flags_of(command) if flag.required]
    usage = " ".join(["ddgan", name, command.words or " ".join([*required, "[--flag=value ...]"])])
    lines = [
        *paragraphs(command.description),
        "",
        *_wrap(f"Usage: {usage}", hanging="    "),
        "",
    ]
    if rows := flag_rows(command):
        lines += ["Flags:", *table(rows), ""]
    return "\n".join([*lines, "Examples:", *(ln for e in command.examples for ln in _example(e))])


def flags_of(command: Command) -> tuple[Flag, ...]:
    """Return all flags of a command, those of its config first."""
    if not command.takes_config:
        return command.flags
    file, field = CONFIG_FLAGS
    return (file._replace(required=not command.config_without_file), field, *command.flags)


def flag_rows(command: Command) -> list[tuple[str, str]]:
    """Return each flag of a command as it is typed, and its meaning, range and default."""
    return [(_spelled(flag), flag.help + _remark(flag)) for flag in flags_of(command)]


def paragraphs(text: str) -> list[str]:
    """Return the lines of a text whose paragraphs are separated by an empty line."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        lines += [*([""] if lines else []), *_wrap(paragraph)]
    return lines


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return the lines of a table of words and their meanings, side by side where there is room."""
    rows = list(rows)
    column = max(len(word) for word, _ in rows) + 4
    if width() - column < _READABLE:
        lines: list[str] = []
        for word, meaning in rows:
            lines += [f"  {word}", *_wrap(meaning, first="      ", hanging="      ")]
        return lines
    hanging = " " * column
    return [
        line
        for word, meaning in rows
        for line in _wrap(meaning, first=f"  {word:<{column - 2}}", hanging=hanging)
    ]


def _wrap(text: str, *, first: str = "", hanging: str = "", room: int = 0) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        width() - room,
        initial_indent=first,
        subsequent_indent=hanging,
        # What is broken could not be copied.
        break_long_words=False,
        break_on_hyphens=False,
    )


def _example(command: str) -> list[str]:
    """Return the lines of a command that a shell reads as one."""
    whole = _QUOTED.sub(lambda quoted: quoted[0].replace(" ", _UNBROKEN), command)
    whole = whole.replace("\\\n", " ")
    lines = _wrap(whole, first="  ", hanging="      ", room=2)
    return [line.replace(_UNBROKEN, " ") for line in _continued(lines)]


def _continued(lines: Sequence[str]) -> list[str]:
    return [f"{line} \\" for line in lines[:-1]] + list(lines[-1:])


def _spelled(flag: Flag) -> str:
    return flag.spelling + (f"={flag.value}" if flag.value else "")


def _remark(flag: Flag) -> str:
    remarks = ["required"] * flag.required
    is_bounded = flag.kind == "integer" and (flag.at_least > 0 or flag.at_most < LARGEST)
    remarks += [flag.range.removeprefix("of ")] if is_bounded else []
    remarks += [f"default {flag.default}"] if flag.default else []
    return f" ({', '.join(remarks)})" if remarks else ""
