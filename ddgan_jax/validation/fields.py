"""Checks of single fields: names, types, choices, ranges."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ddgan_jax.config_files import did_you_mean
from ddgan_jax.errors import UserError


class Range(NamedTuple):
    """What a number must fulfil, and how to say so."""

    holds: Callable[[Any], bool]
    text: str


POSITIVE = Range(lambda v: v > 0, "must be positive")
NOT_NEGATIVE = Range(lambda v: v >= 0, "must not be negative")
BELOW_ONE = Range(lambda v: 0 <= v < 1, "must be at least 0 and less than 1")
EMBEDDING = Range(lambda v: v >= 4, "must be at least 4")  # two frequencies, sine and cosine


def get(config: ConfigDict, path: str) -> Any:
    """The value of a field such as "train.batch_size"."""
    section, _, field = path.partition(".")
    return config[section][field]


def check_fields(prefix: str, fields: Mapping[str, Any], template: Mapping[str, Any]) -> None:
    """The same names as the template, and values of its types."""
    for key in template:
        if key not in fields:
            raise UserError(f"{prefix}{key} is missing")
    for key, value in fields.items():
        if key not in template:
            nearest = did_you_mean(prefix + key, (prefix + known for known in template))
            raise UserError(f"{prefix}{key} is not a field{nearest}")
        if not _has_type_of(template[key], value):
            kind = _TYPE_NAMES[type(template[key])]
            kind += f" such as {template[key]}" if isinstance(template[key], tuple) else ""
            raise UserError(f"{prefix}{key}={value!r} is not {kind}")


_TYPE_NAMES = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a tuple",
    ConfigDict: "a group of fields",
}


def _has_type_of(example: Any, value: Any) -> bool:
    if isinstance(example, tuple):
        entry = example[0] if example else 0  # a tuple that is empty by default is one of pixels
        return isinstance(value, tuple) and all(_has_type_of(entry, v) for v in value)
    if isinstance(example, float):
        return type(value) in (int, float)
    return type(value) is type(example)


def check_choice(config: ConfigDict, path: str, known: Iterable[str]) -> None:
    """Refuse a field whose value is not one of `known`."""
    section, _, field = path.partition(".")
    if field not in config[section]:
        raise UserError(f"{path} is missing")
    value = config[section][field]
    if value not in known:
        nearest = did_you_mean(str(value), known)
        raise UserError(f"{path}={value!r} is not one of {', '.join(known)}{nearest}")


def check_ranges(config: ConfigDict, ranges: Mapping[str, Range]) -> None:
    """Refuse fields, by full name, whose value (or any of a tuple) leaves its range."""
    for path, (holds, text) in ranges.items():
        value = get(config, path)
        if not all(map(holds, value)) if isinstance(value, tuple) else not holds(value):
            raise UserError(f"{path}={value} {text}")


def nearest_that_work(value: int, works: Callable[[int], bool]) -> str:
    """ "16 or 24": the nearest numbers below and above `value` that work."""
    below = next((n for n in range(value - 1, 0, -1) if works(n)), None)
    above = next((n for n in range(value + 1, 2 * value + 2**16) if works(n)), None)
    return " or ".join(str(n) for n in (below, above) if n is not None)
