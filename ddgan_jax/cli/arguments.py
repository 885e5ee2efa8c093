"""Read the arguments of a command: its flags, a config with changed fields, lists of seeds.

absl parses the flags and ml_collections the fields of the config. Every mistake raises UserError,
which names the nearest flag for a misspelled one and the range for a number outside of it. Lists
are counted before they are made, since a range of seeds may be longer than memory.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from absl import flags
from ml_collections import config_flags

from ddgan_jax.cli.spelling import declared, in_digits, spell
from ddgan_jax.config import LARGEST, MOST_IMAGES, ConfigDict
from ddgan_jax.config.files import leaves, load_config, shipped_configs
from ddgan_jax.errors import UserError, did_you_mean, shown


class Flag(NamedTuple):
    """One flag of a command. kind: "string", "integer" or "switch".

    `parse_flags` refuses an integer below at_least or above at_most.
    """

    name: str
    # The word behind "=" on the help page; "" for a switch.
    value: str
    help: str
    default: Any = None
    kind: str = "string"
    required: bool = False
    at_least: int = 0
    at_most: int = LARGEST

    @property
    def spelling(self) -> str:
        """Return the flag as users read it, such as "--allow-small"."""
        return spell(self.name)

    @property
    def range(self) -> str:
        """Return the integers that the flag takes, for the help page and for messages."""
        if self.at_most == LARGEST:
            return f"{self.at_least} or more"
        return f"{self.at_least} to {self.at_most:,}"


CONFIG_FLAGS = (
    Flag(
        "config",
        "NAME[:ARGUMENT]",
        "a config that ships, or a file: FILE.py[:ARGUMENT]",
        required=True,
    ),
    Flag("config.FIELD", "VALUE", "change a field of the config; may be repeated"),
)

_DEFINE = {
    "string": flags.DEFINE_string,
    "integer": flags.DEFINE_integer,
    "switch": flags.DEFINE_boolean,
}
_KINDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    tuple: "a tuple such as 1,2,2",
    str: "a string",
}
_FLAG = re.compile(r"--?([a-zA-Z][^=]*)(?:=.*)?", re.DOTALL)
# absl has these two flags in every program, and would read any file for them, also a device.
_OF_ABSL = re.compile(r"--?(flagfile|undefok)\b")
# "--noconfig.x.y" is how absl spells a false switch.
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=.*)?", re.DOTALL)


def parse_flags(
    command: str, known: Sequence[Flag], argv: Sequence[str]
) -> tuple[flags.FlagValues, list[str]]:
    """Return a command's flags, and the arguments `--config.field=value` that change a config.

    Raises UserError for a flag that is unknown, malformed, out of its range or missing.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    # "config.FIELD" stands for all fields of a config, which `parse_config` reads.
    names = [flag.name for flag in known if "." not in flag.name]
    takes_config = len(names) < len(known)
    for flag in known:
        if flag.name in names:
            # absl's own definitions check the range of an integer, so that one place decides it.
            bounds = {"lower_bound": flag.at_least, "upper_bound": flag.at_most}
            _DEFINE[flag.kind](
                flag.name,
                flag.default,
                flag.help,
                flag_values=values,
                **(bounds if flag.kind == "integer" else {}),
            )
    integers = {flag.name for flag in known if flag.kind == "integer"}
    argv = in_digits([declared(a, names) for a in argv], integers.__contains__)
    for argument in argv:
        if _OF_ABSL.match(argument):
            _refuse_unknown(argument, names)
    try:
        # absl returns what it does not know, and its own message would name no nearest flag.
        rest = values([command, *argv], known_only=True)[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(_explain(error, {flag.name: _kind(flag) for flag in known})) from error
    # What absl has left over is a field of the config, a misspelled flag or a word that belongs to
    # no flag.
    for argument in rest:
        if not (takes_config and _OVERRIDE.fullmatch(argument)):
            _refuse_unknown(argument, names)
    if not takes_config:
        _refuse_positional(rest)
    # absl's own check of required flags would come before the one for unknown flags.
    for flag in known:
        if flag.required and not values[flag.name].value:
            if flag.name == "config":
                raise config_is_missing()
            raise UserError(f"{flag.spelling} is missing; see {command} --help")
    return values, rest


def parse_config(path: str, overrides: Sequence[str]) -> ConfigDict:
    """Return the config that `load_config` finds, changed as by `change_config`."""
    return change_config(load_config(path), overrides)


def change_config(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Return the config, locked, with `--config.field=value` arguments applied in place.

    Raises UserError for a field that does not exist and for a value of another type.
    """
    # ml_collections would call an unknown field an unknown flag, and suggest nothing.
    for match in filter(None, map(_OVERRIDE.fullmatch, overrides)):
        _check_field(config, match[1])
    integers = {f"config.{path}" for path, value in leaves(config) if type(value) is int}
    overrides = in_digits(overrides, integers.__contains__)
    # ml_collections looks for the fields among the arguments before absl parses them.
    argv = ["config", *overrides]
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        _refuse_positional(values(argv)[1:])
    # Python's parser of literals raises these for a value such as a thousand opening brackets.
    except (MemoryError, RecursionError) as error:
        longest = shown(max(overrides, key=len))
        raise UserError(f"{longest} is nested too deeply to be a value") from error
    # The parsers of values do not say which errors they raise.
    except Exception as error:
        kinds = {f"config.{p}": _KINDS.get(type(v), "valid") for p, v in leaves(config)}
        raise UserError(_explain(error, kinds)) from error
    return values.config


def parse_seeds(text: str, *, most: int = MOST_IMAGES) -> list[int]:
    """Return the seeds in "0-63" or "1,5,10-20", in the order given; ranges include both ends.

    Raises UserError for anything else, for a seed above 2^31 - 1, for one that is named twice, and
    for more than `most` seeds.
    """
    flag = f"--seeds={shown(text)}"
    ranges: list[range] = []
    for part in text.split(","):
        # re.ASCII leaves out the digits of other scripts, which \d takes and int reads.
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, re.ASCII)
        if not match:
            raise UserError(
                f"{flag}: {shown(repr(part))} is neither a seed nor a range, as 0-63 is"
            )
        first, last = _integer(match[1]), _integer(match[2] or match[1])
        if max(first, last) > LARGEST:
            raise UserError(f"{flag}: {shown(part)} is above the largest seed, {LARGEST}")
        if last < first:
            raise UserError(f"{flag}: the range {shown(part)} runs backwards")
        ranges.append(range(first, last + 1))
    # They are counted and compared as ranges, since a list of all seeds may not fit into memory.
    count = sum(map(len, ranges))
    if count > most:
        raise UserError(f"{flag}: {count:,} seeds; at most {most:,} are possible at once")
    # Sorted by their starts, ranges that overlap have a neighbour with which they do.
    in_order = sorted(ranges, key=lambda part: part.start)
    for before, after in itertools.pairwise(in_order):
        if after.start < before.stop:
            raise UserError(f"{flag}: seed {after.start} is named more than once")
    return [seed for part in ranges for seed in part]


def parse_integers(flag: str, text: str) -> list[int]:
    """Return the integers in "2,4,8", in the order given. Raises UserError for anything else."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text, re.ASCII):
        raise UserError(f"--{flag}={shown(text)} is not a list of positive integers such as 2,4,8")
    return _bounded(flag, text)


def parse_names(flag: str, text: str, known: Iterable[str]) -> list[str]:
    """Return the names in "a,b", in the order given. Raises UserError for one that is not known."""
    names = text.split(",")
    for name in names:
        if name not in known:
            nearest = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise UserError(f"--{flag}: {shown(repr(name))} is not known{nearest}")
    return names


def parse_labels(text: str) -> list[int] | Literal["all"]:
    """Return the classes in "207,88", in the order given; "all"; or none for "".

    Raises UserError for anything else, and for a class that is named twice.
    """
    if text in ("", "all"):
        return text or []
    if not re.fullmatch(r"\d+(,\d+)*", text, re.ASCII):
        raise UserError(f"--labels={shown(text)} is neither 'all' nor classes such as 207,88")
    labels = _bounded("labels", text)
    for before, after in itertools.pairwise(sorted(labels)):
        if before == after:
            raise UserError(f"--labels={shown(text)}: class {after} is named more than once")
    return labels


def _bounded(flag: str, text: str) -> list[int]:
    numbers = [_integer(part) for part in text.split(",")]
    if max(numbers) > LARGEST:
        raise UserError(f"--{flag}={shown(text)}: numbers above {LARGEST} are not possible")
    return numbers


def _integer(digits: str) -> int:
    """Return the number that the digits say, or LARGEST + 1 for any with more digits than LARGEST.

    int() itself raises ValueError for more than 4,300 digits.
    """
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= len(str(LARGEST)) else LARGEST + 1


def _check_field(config: ConfigDict, path: str) -> None:
    node = config
    for key in path.split("."):
        if not isinstance(node, ConfigDict) or key not in node:
            nearest = did_you_mean(f"--config.{path}", (f"--config.{p}" for p, _ in leaves(config)))
            raise UserError(f"the config has no field --config.{shown(path)}{nearest}")
        node = node[key]


def _kind(flag: Flag) -> str:
    """Return the kind of a flag's values with its article, such as "an integer from 0 to 3"."""
    kinds = {"string": "a string", "switch": "true or false"}
    preposition = "of" if flag.at_most == LARGEST else "from"
    return kinds.get(flag.kind) or f"an integer {preposition} {flag.range}"


def _explain(error: Exception, kinds: Mapping[str, str]) -> str:
    """Return the message about a flag's value that absl refused, without Python's words.

    kinds: the kind of each flag's values, such as "an integer".
    """
    # absl's messages begin with the flag and the value, and go on in the words of its Python
    # parsers.
    match = re.match(r"flag --([^=]+)=(.*?): ", str(error), re.DOTALL)
    if not match:
        return shown(error, 300)
    name, value = match.groups()
    if name not in kinds:
        # absl sees a whole group of a config as a flag, too, which has no kind of value here.
        return f"--{shown(name)} is a group of fields; change them one by one"
    return f"{spell(name)}={shown(value)} is not {kinds[name]}"


def _refuse_unknown(argument: str, names: Sequence[str]) -> None:
    """Refuse an argument that is a flag. names: the flags of the command, for a suggestion."""
    # Anything else is no flag, and `_refuse_positional` has the message for it.
    if match := _FLAG.fullmatch(argument):
        given = spell(match[1])
        nearest = did_you_mean(given, [spell(name) for name in names])
        raise UserError(f"unknown flag {shown(given)}{nearest}")


def _refuse_positional(arguments: Sequence[str]) -> None:
    if arguments:
        argument = shown(repr(arguments[0]))
        raise UserError(f"unexpected argument {argument}; flags are given as --name=value")


def config_is_missing(why: str = "") -> UserError:
    """Return the error for a command without --config, with the names of those that ship."""
    return UserError(
        f"--config is missing{why}; name a Python file with get_config, or a config that ships: "
        + ", ".join(shipped_configs())
    )
