"""Run one command of `ddgan`, with its messages, its exit code and its help page.

A mistake of the user is one line on stderr and exit code 2; a traceback is always a bug. If another
process holds a place that the command writes, the exit code is 75, and launchers start the same
command again.
"""

import errno
import os
import resource
import sys
import warnings
from collections.abc import Sequence

from absl import flags

import ddgan_jax
from ddgan_jax import compiler, progress, signals
from ddgan_jax.cli import help_pages, orbax_messages, terminal
from ddgan_jax.cli.arguments import change_config, parse_config, parse_flags
from ddgan_jax.cli.commands import COMMANDS, Command
from ddgan_jax.cli.messages import with_flags
from ddgan_jax.errors import (
    BusyError,
    UserError,
    did_you_mean,
    printable,
    reason,
    shown,
    whole_install,
)

USER_ERROR = 2
_HELP = ("-h", "--help")
# The code with which a shell reports a program that SIGPIPE, signal 13, has ended.
PIPE_CLOSED = 128 + 13
# Orbax, Grain and XLA open so many at once.
FEWEST_OPEN_FILES = 256
# Errors that say what the machine lacks, whichever file they occurred at.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. argv: without the program's name."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # "help train" is "train --help", and one command prints one message.
    while argv[:1] == ["help"] and argv[1:]:
        argv = [*argv[1:], "--help"]
    # The names of two words come first: "figure" alone is no command, but may begin one.
    name = next((" ".join(argv[:n]) for n in (2, 1) if " ".join(argv[:n]) in COMMANDS), "")
    command = COMMANDS.get(name)
    program = f"ddgan {name}".rstrip()
    consequence = command.when_interrupted if command else "stopped"
    # Signals that end the process without an exception print the same words.
    signals.describe(program, consequence)
    known = {flag.name for flag in help_pages.flags_of(command)} if command else set()

    def end(error: BaseException | str, code: int) -> int:
        # One line in any case, since launchers and logs take each line for a message of its own.
        line = " ".join(str(error).split())
        if isinstance(error, UserError):
            line = with_flags(line, known)
        print(f"{program}: {printable(line)}", file=sys.stderr)
        return code

    code = 0
    try:
        if command:
            _run(name, command, argv[len(name.split()) :])
        else:
            code = _without_command(argv)
        # Output that is still in the buffer is written while its errors can become a message.
        sys.stdout.flush()
    except BusyError as error:
        return end(error, signals.RUN_AGAIN)
    except UserError as error:
        return end(error, USER_ERROR)
    except KeyboardInterrupt:
        return end(f"interrupted; {consequence}", signals.INTERRUPTED)
    except BrokenPipeError:
        # A reader such as `head` that has seen enough is no mistake, a pipe inside a command is.
        if not _stdout_is_closed():
            raise
        return PIPE_CLOSED
    except MemoryError:
        return end("this machine's memory is full", USER_ERROR)
    except OSError as error:
        # Any other error of the system that no command has turned into a UserError is a bug.
        if error.errno not in _SHORTAGES:
            raise
        return end(f"the system refuses to go on: {reason(error)}", USER_ERROR)
    # An error of standard output alone shows here: a run goes on without it until its work is done.
    if failure := terminal.output_failure():
        return end(f"standard output cannot be written: {reason(failure)}", USER_ERROR)
    return code


def _without_command(argv: list[str]) -> int:
    """Print a help page, or refuse what is no command; return the exit code."""
    first, *rest = argv or [""]
    if first in ("-h", "--help", "help"):
        print(help_pages.overview())
    elif first in ("--version", "version"):
        print(f"ddgan-jax {ddgan_jax.__version__}")
    elif first in help_pages.groups() and rest and rest[0] in _HELP:
        print(help_pages.group_page(first))
    elif not rest and first in ("", *help_pages.groups()):
        # Nothing was asked for: a page helps a person, and the exit code a script.
        print(help_pages.group_page(first) if first else help_pages.overview(), file=sys.stderr)
        return USER_ERROR
    else:
        # The names of some commands have two words: the mistake may be in either.
        words = " ".join(word for word in argv[:2] if not word.startswith("-"))
        nearest = did_you_mean(words, COMMANDS) or did_you_mean(first, COMMANDS)
        raise UserError(f"unknown command {shown(repr(words))}{nearest or '; see ddgan --help'}")
    return 0


def _run(name: str, command: Command, argv: list[str]) -> None:
    # A help page needs no flag that is required, and none of the checks below.
    asked = set(argv[:1]) if command.words else set(argv)
    if asked & set(_HELP):
        print(help_pages.help_page(name, command))
        return
    if command.words:
        command.run(argv)
        return
    _check_process()
    _adapt_libraries()
    values, overrides = parse_flags(f"ddgan {name}", help_pages.flags_of(command), argv)
    arguments = ()
    if command.config_without_file and not values["config"].present:
        arguments = (change_config(command.config_without_file(values), overrides),)
    elif command.takes_config:
        arguments = (parse_config(values.config, overrides),)
    with progress.phase("starting", gives_way=True), whole_install("this command"):
        # A failure of the import becomes one line here instead of a traceback.
        compiler.import_jax()
        command.run(values, *arguments)


def _check_process() -> None:
    """Refuse a process in which libraries would fail later, with a traceback."""
    most_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most_open != resource.RLIM_INFINITY and most_open < FEWEST_OPEN_FILES:
        raise UserError(
            f"a process may open {most_open} files here, and this needs {FEWEST_OPEN_FILES}: "
            f"ulimit -n {FEWEST_OPEN_FILES}"
        )
    try:
        # Whatever makes a path absolute fails in a folder that has been removed.
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError(
            "the folder in which this was started is gone: change to another"
        ) from error


def _adapt_libraries() -> None:
    """Change the settings that libraries keep for the whole process; only a program may do that."""
    orbax_messages.silence()
    # Images are checked for their size before Pillow decodes them, with a message of ours.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")
    # Figures are files. The environment of a notebook names its own backend, and matplotlib cannot
    # be imported where that is not installed.
    os.environ.pop("MPLBACKEND", None)
    # Grain's workers read absl's own registry of flags, which must be marked as parsed for that.
    # This program defines its flags elsewhere and leaves the registry empty.
    flags.FLAGS.mark_as_parsed()


def _stdout_is_closed() -> bool:
    """Return whether the reader of standard output has gone, as in `ddgan ... | head`."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except BrokenPipeError:
        # The interpreter flushes once more at exit, which would fail and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
