"""Declare the command that prints shell completion: completion.

The script for a shell is written from the table of commands, and needs no start of Python when it
is used: a person who presses Tab does not wait.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence

from ddgan_jax.cli import help_pages
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.cli.command import Command
from ddgan_jax.cli.launchers import LAUNCHERS
from ddgan_jax.config.defaults import SECTIONS
from ddgan_jax.config.files import shipped_configs
from ddgan_jax.config.networks import NETWORKS
from ddgan_jax.errors import UserError, did_you_mean, shown

_BASH = """\
# Completion for bash, also that of macOS: eval "$(ddgan completion bash)" in ~/.bashrc
_ddgan() {{
    # bash divides words at = and :, which flags hold; these are the words as they were typed.
    local rest=${{COMP_LINE:0:COMP_POINT}} typed=() known=() choices=()
    # A word has plain characters, escaped ones, and quoted parts, the last of which may be open.
    local plain='[^[:space:]"'\\''\\\\]|\\\\.|\\\\$'
    local quoted='"([^"\\\\]|\\\\.)*\\\\?("|$)|'\\''[^'\\'']*('\\''|$)'
    while [[ $rest =~ ^[[:space:]]*(($plain|$quoted)*) && ${{BASH_REMATCH[1]}} ]]; do
        typed+=("${{BASH_REMATCH[1]}}")
        rest=${{rest:${{#BASH_REMATCH[0]}}}}
    done
    if [[ $rest ]]; then typed+=(""); fi
    local count=${{#typed[@]}} first=${{typed[1]}}
    local word=${{typed[count - 1]}}
    if ((count == 2)); then
        choices=({firsts})
    else
        case $first in
{seconds}
        esac
        if [[ ${{known[*]}} ]]; then first+=" ${{typed[2]}}"; fi
        case $first in
{flags}
        esac
        if ((count == 3)) && [[ ${{known[*]}} ]]; then choices=("${{known[@]}}"); fi
    fi
    if [[ $word == --config=* ]]; then
        choices=({configs})
    elif [[ $word == *=* ]]; then
        choices=()
    fi
    COMPREPLY=($(compgen -W "${{choices[*]}}" -- "${{word#--config=}}"))
    if [[ ${{COMPREPLY[0]:-}} == *= ]] && type compopt &>/dev/null; then compopt -o nospace; fi
}}
# Without any choice the shell completes names of files.
complete -o default -F _ddgan ddgan
"""
_ZSH = """\
#compdef ddgan
# Completion for zsh: source <(ddgan completion zsh) in ~/.zshrc, after compinit
_ddgan() {{
    local word=$words[CURRENT] first=$words[2]
    local -a known choices
    if ((CURRENT == 2)); then
        choices=({firsts})
    else
        case $first in
{seconds}
        esac
        if (($#known)); then first+=" $words[3]"; fi
        case $first in
{flags}
        esac
        if ((CURRENT == 3 && $#known)); then choices=($known); fi
    fi
    if [[ $word == --*=* ]]; then
        compset -P '*='
        if [[ $word == --config=* ]]; then compadd -- {configs}; fi
        _files
    else
        compadd -S '' -- ${{(M)choices:#*=}}
        compadd -- ${{choices:#*=}}
    fi
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _ddgan "$@"; else compdef _ddgan ddgan; fi
"""


def _commands() -> Mapping[str, Command]:
    # The table has this command in it, and is complete only when all are declared.
    from ddgan_jax.cli.commands import COMMANDS

    return COMMANDS


def _firsts() -> list[str]:
    return [*dict.fromkeys(name.split()[0] for name in _commands()), "help"]


def _seconds() -> dict[str, list[str]]:
    """Return the words that may follow a first one and are no flags."""
    groups = {first: [n.split()[1] for n in names] for first, names in help_pages.groups().items()}
    return groups | {"launch": list(LAUNCHERS), "completion": list(SHELLS), "help": _firsts()}


def _choices(command: Command) -> list[str]:
    """Return what may be typed behind a command, with "=" behind a flag that takes a value."""
    flags = (flag for flag in help_pages.flags_of(command) if flag.name != "config.FIELD")
    spelled = [flag.spelling + "=" * bool(flag.value) for flag in flags]
    fields = [f"--{field}=" for field in _fields()] if command.takes_config else []
    return [*spelled, *fields, "--help"]


def _fields() -> list[str]:
    """Return all fields that some config has, such as "config.train.seed"."""
    sections = {**SECTIONS}
    for role, networks in NETWORKS.items():
        sections[role] = {k: field for group in networks.values() for k, field in group.items()}
    return [f"config.{name}.{key}" for name, section in sections.items() for key in section]


def _filled(template: str) -> str:
    """Return a script for bash or zsh, whose lists look the same."""

    def cases(variable: str, table: Mapping[str, Sequence[str]]) -> str:
        return "\n".join(
            f"            {shlex.quote(word)}) {variable}=({shlex.join(choices)}) ;;"
            for word, choices in table.items()
        )

    return template.format(
        firsts=shlex.join(_firsts()),
        seconds=cases("known", _seconds()),
        flags=cases("choices", {name: _choices(c) for name, c in _commands().items()}),
        configs=shlex.join(shipped_configs()),
    )


def _fish() -> str:
    lines = ["# Completion for fish: ddgan completion fish | source in ~/.config/fish/config.fish"]

    def add(condition: str, *words: str) -> None:
        lines.append(shlex.join(["complete", "-c", "ddgan", "-n", condition, *words]))

    for first in _firsts():
        summary = _commands()[first].summary if first in _commands() else ""
        add("__fish_use_subcommand", "-f", "-a", first, "-d", summary)
    for first, seconds in _seconds().items():
        seen = f"__fish_seen_subcommand_from {first}"
        add(f"{seen}; and test (count (commandline -opc)) -eq 2", "-f", "-a", " ".join(seconds))
    for name, command in _commands().items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        for flag in help_pages.flags_of(command):
            if flag.name != "config.FIELD":
                add(seen, *_fish_flag(flag))
        for field in _fields() if command.takes_config else ():
            add(seen, "-x", "-l", field)
    return "\n".join(lines) + "\n"


def _fish_flag(flag: Flag) -> list[str]:
    names = ["-a", " ".join(shipped_configs())] if flag.name == "config" else []
    takes = ["-r", "-F"] if flag.value else ["-f"]
    return ["-l", flag.spelling.removeprefix("--"), "-d", flag.help, *takes, *names]


SHELLS: Mapping[str, Callable[[], str]] = {
    "bash": lambda: _filled(_BASH),
    "zsh": lambda: _filled(_ZSH),
    "fish": _fish,
}


def _completion(argv: Sequence[str]) -> None:
    if len(argv) != 1 or argv[0] not in SHELLS:
        nearest = did_you_mean(argv[0], SHELLS) if argv else ""
        given = f"{shown(repr(' '.join(argv)))} is no shell" if argv else "no shell"
        raise UserError(f"{given}{nearest or '; name one of ' + ', '.join(SHELLS)}")
    print(SHELLS[argv[0]](), end="")


COMMANDS = {
    "completion": Command(
        summary="print a script by which a shell completes commands and flags",
        description=(
            "Print a script for bash, zsh or fish that completes commands, flags, fields of "
            "configs and the names of those that come with the program. In ~/.bashrc: "
            'eval "$(ddgan completion bash)", in ~/.zshrc, after compinit: source <(ddgan '
            "completion zsh), in config.fish: ddgan completion fish | source."
        ),
        flags=(),
        words=" | ".join(SHELLS),
        examples=("ddgan completion bash",),
        run=_completion,
    ),
}
