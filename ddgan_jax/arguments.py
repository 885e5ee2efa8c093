"""What stands behind a command: flags (absl), a config with changed fields (ml_collections), seeds.

Every mistake raises UserError with the nearest name that would be right.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from absl import flags
from ml_collections import config_flags

import ddgan_jax
from ddgan_jax.config import ConfigDict
from ddgan_jax.config_files import did_you_mean, leaves, load_config
from ddgan_jax.errors import UserError

LARGEST_SEED = 2**31 - 1


class Flag(NamedTuple):
    """One flag of a command. kind: "string", "integer" or "switch"."""

    name: str
    value: str  # what stands behind "=" on the help page; "" for a switch
    help: str
    default: Any = None
    kind: str = "string"
    required: bool = False


CONFIG_FLAGS = (
    Flag("config", "FILE[:ARGUMENT]", "config file, e.g. configs/x.py:tiny", required=True),
    Flag("config.FIELD", "VALUE", "change a field of the config; may be repeated"),
)

_DEFINE = {
    "string": flags.DEFINE_string,
    "integer": flags.DEFINE_integer,
    "switch": flags.DEFINE_boolean,
}
_FLAG_TYPES = {"string": str, "integer": int, "switch": bool}
_KINDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    tuple: "a tuple such as 1,2,2",
    str: "a string",
}
_HYPHENS = re.compile(r"(?<=^--)\w[\w-]*(?==|$)")  # --num-processes is --num_processes
_FLAG = re.compile(r"--?([a-zA-Z][^=]*)(?:=.*)?", re.DOTALL)
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=.*)?", re.DOTALL)


def parse_flags(
    command: str, known: Sequence[Flag], argv: Sequence[str]
) -> tuple[flags.FlagValues, list[str]]:
    """The flags of a command, and the arguments that change a config, `--config.field=value`.

    Raises UserError for a flag that is unknown, malformed or missing.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    names = [flag.name for flag in known if "." not in flag.name]
    takes_config = len(names) < len(known)
    for flag in known:
        if flag.name in names:
            _DEFINE[flag.kind](flag.name, flag.default, flag.help, flag_values=values)
    argv = [_HYPHENS.sub(lambda name: name[0].replace("-", "_"), argument) for argument in argv]
    try:
        rest = values([command, *argv], known_only=True)[1:]
    except (flags.Error, ValueError) as error:
        kinds = {flag.name: _KINDS[_FLAG_TYPES[flag.kind]] for flag in known}
        raise UserError(_explain(error, kinds)) from error
    for argument in rest:
        match = _FLAG.fullmatch(argument)
        if match and not (takes_config and _OVERRIDE.fullmatch(argument)):
            nearest = did_you_mean(f"--{match[1]}", [f"--{name}" for name in names])
            raise UserError(f"unknown flag --{match[1]}{nearest}")
    if not takes_config:
        _refuse_positional(rest)
    for flag in known:
        if flag.required and not values[flag.name].value:
            remedy = _shipped_configs() if flag.name == "config" else f"see {command} --help"
            raise UserError(f"--{flag.name} is missing; {remedy}")
    return values, rest


def parse_config(path: str, overrides: Sequence[str]) -> ConfigDict:
    """The config of a file, locked, with `--config.field=value` arguments applied.

    Raises UserError for a field that does not exist and for a value of another type.
    """
    config = load_config(path)
    for match in filter(None, map(_OVERRIDE.fullmatch, overrides)):
        _check_field(config, match[1])
    argv = ["config", *overrides]
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        _refuse_positional(values(argv)[1:])
    except (flags.Error, ValueError) as error:
        kinds = {f"config.{p}": _KINDS.get(type(v), "valid") for p, v in leaves(config)}
        raise UserError(_explain(error, kinds)) from error
    return values.config


def parse_seeds(text: str) -> list[int]:
    """The seeds in "0-63" or "1,5,10-20", in the order given. Ranges include both ends.

    Raises UserError for anything else, for a seed above 2^31 - 1, and for one named twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, re.ASCII)
        if not match:
            raise UserError(f"--seeds={text}: {part!r} is neither a seed nor a range such as 0-63")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"--seeds={text}: the range {part.strip()} runs backwards")
        if last > LARGEST_SEED:
            raise UserError(f"--seeds={text}: {last} is above the largest seed, {LARGEST_SEED}")
        seeds += range(first, last + 1)
    _refuse_repeats(f"--seeds={text}: seed", seeds)
    return seeds


def parse_integers(flag: str, text: str) -> list[int]:
    """The positive integers in "2,4,8", in the order given. Raises UserError for anything else."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text, re.ASCII):
        raise UserError(f"--{flag}={text} is not a list of positive integers such as 2,4,8")
    return [int(part) for part in text.split(",")]


def parse_names(flag: str, text: str, known: Iterable[str]) -> list[str]:
    """The names in "a,b", in the order given. Raises UserError for one that is not known."""
    names = text.split(",")
    for name in names:
        if name not in known:
            nearest = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise UserError(f"--{flag}: {name!r} is not known{nearest}")
    return names


def parse_labels(text: str) -> list[int] | Literal["all"]:
    """The classes in "207,88", in the order given; "all"; or none for "".

    Raises UserError for anything else, and for a class named twice.
    """
    if text in ("", "all"):
        return text or []
    if not re.fullmatch(r"\d+(,\d+)*", text, re.ASCII):
        raise UserError(f"--labels={text} is neither 'all' nor classes such as 207,88")
    labels = [int(part) for part in text.split(",")]
    _refuse_repeats(f"--labels={text}: class", labels)
    return labels


def _refuse_repeats(what: str, values: Sequence[int]) -> None:
    value, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise UserError(f"{what} {value} is named {times} times")


def _check_field(config: ConfigDict, path: str) -> None:
    node = config
    for key in path.split("."):
        if not isinstance(node, ConfigDict) or key not in node:
            nearest = did_you_mean(f"--config.{path}", (f"--config.{p}" for p, _ in leaves(config)))
            raise UserError(f"the config has no field --config.{path}{nearest}")
        node = node[key]


def _explain(error: Exception, kinds: Mapping[str, str]) -> str:
    """absl's message about a value that is none, without Python's words."""
    match = re.match(r"flag --([^=]+)=(.*?): ", str(error), re.DOTALL)
    if not match:
        return str(error)
    name, value = match.groups()
    if name not in kinds:
        return f"--{name} is a group of fields; change them one by one"
    return f"--{name}={value} is not {kinds[name]}"


def _refuse_positional(arguments: Sequence[str]) -> None:
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; flags are given as --name=value")


def _shipped_configs() -> str:
    beside_package = Path(ddgan_jax.__file__).parents[1] / "configs"
    folder = Path("configs") if Path("configs").is_dir() else beside_package
    files = ", ".join(file.name for file in sorted(folder.glob("*.py")))
    return f"choose one in {folder}: {files}" if files else "it names a Python file with get_config"
