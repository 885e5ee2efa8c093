"""Checks of single fields: names, types, choices, ranges.

Every number has an upper bound, so that whatever comes after a check may count up to it, and make
arrays of that length. The bounds are far above what anybody trains.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ddgan_jax.config import LARGEST
from ddgan_jax.errors import UserError, did_you_mean, shown

MOST_ENTRIES = 32  # of a tuple; a network of more levels would need images of 2^32 pixels
LONGEST_STRING = 4096  # characters, as of the longest path
_BEGINNING = 100  # entries or characters, more than a message shows

MOST_CHANNELS = 65_536  # of any layer at full width, and entries of any embedding
MOST_LAYERS = 100  # of one level of a network, or of a dense network
MOST_CLASSES = 1_000_000


class Range(NamedTuple):
    """What a number must fulfil, how to say so, and the largest one that is possible."""

    holds: Callable[[Any], bool]
    text: str
    largest: float = LARGEST

    def up_to(self, largest: float) -> "Range":
        """Return the same range with another largest number."""
        return self._replace(largest=largest)


POSITIVE = Range(lambda v: v > 0, "must be positive")
NOT_NEGATIVE = Range(lambda v: v >= 0, "must not be negative")
BELOW_ONE = Range(lambda v: 0 <= v < 1, "must be at least 0 and less than 1")
# Two frequencies, sine and cosine.
EMBEDDING = Range(lambda v: v >= 4, "must be at least 4", MOST_CHANNELS)


def get(config: ConfigDict, path: str) -> Any:
    """Return the value of a field such as "train.batch_size"."""
    section, _, field = path.partition(".")
    return config[section][field]


def check_fields(prefix: str, fields: Mapping[str, Any], template: Mapping[str, Any]) -> None:
    """Refuse a group of fields without all names of the template, and as `check_known` does."""
    for key in template:
        if key not in fields:
            raise UserError(f"{prefix}{key} is missing")
    check_known(prefix, fields, template)


def check_known(prefix: str, fields: Any, template: Mapping[str, Any]) -> None:
    """Refuse names that the template lacks, other types than its values have, and huge values.

    prefix: the group's name with a dot, "" for a whole config. fields: anything at all.
    """
    if not isinstance(fields, Mapping | ConfigDict):
        group = prefix.removesuffix(".") or "this"
        raise UserError(f"{group} is no group of fields but {_value(fields)}")
    for key, value in fields.items():
        if not isinstance(key, str) or key not in template:
            nearest = did_you_mean(f"{prefix}{key}", (prefix + known for known in template))
            raise UserError(f"{prefix}{shown(key)} is not a field{nearest}")
        if not _has_type_of(template[key], value):
            kind = _TYPE_NAMES[type(template[key])]
            kind += f" such as {template[key]}" if isinstance(template[key], tuple) else ""
            raise UserError(f"{prefix}{key}={_value(value)} is not {kind}")
        _check_size(f"{prefix}{key}", value)


def _check_size(path: str, value: Any) -> None:
    if isinstance(value, str) and len(value) > LONGEST_STRING:
        raise UserError(f"{path}={_value(value)} is longer than {LONGEST_STRING} characters")
    if isinstance(value, tuple) and len(value) > MOST_ENTRIES:
        raise UserError(
            f"{path}={_value(value)} has {len(value):,} entries; {MOST_ENTRIES} are possible"
        )
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise UserError(f"{path}={_value(value)} is not finite")
        if isinstance(number, int | float) and abs(number) > LARGEST:
            raise UserError(f"{path}={_value(value)} must lie between 0 and 2^31 - 1")


def _value(value: Any) -> str:
    """Return a value of any size for a message; only its beginning is looked at."""
    if isinstance(value, str):
        return shown(repr(value[:_BEGINNING]))
    if isinstance(value, tuple | list):
        return shown(value[:_BEGINNING])
    if isinstance(value, Mapping | ConfigDict):
        return f"a group of {len(value)} fields"
    return shown(value)


_TYPE_NAMES = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a tuple",
    ConfigDict: "a group of fields",
}


def _has_type_of(example: Any, value: Any) -> bool:
    if isinstance(example, ConfigDict):
        return isinstance(value, Mapping | ConfigDict)
    if isinstance(example, tuple):
        entry = example[0] if example else 0  # a tuple that is empty by default is one of pixels
        return isinstance(value, tuple) and all(_has_type_of(entry, v) for v in value)
    if isinstance(example, float):
        return type(value) in (int, float)
    return type(value) is type(example)


def check_choice(config: Mapping[str, Any], path: str, known: Iterable[str]) -> None:
    """Refuse a field whose value is not one of `known`."""
    section, _, field = path.partition(".")
    if field not in config[section]:
        raise UserError(f"{path} is missing")
    value = config[section][field]
    if not isinstance(value, str) or value not in known:
        nearest = did_you_mean(value, known) if isinstance(value, str) else ""
        raise UserError(f"{path}={_value(value)} is not one of {', '.join(known)}{nearest}")


def check_ranges(config: ConfigDict, ranges: Mapping[str, Range]) -> None:
    """Refuse fields, by full name, whose value (or any of a tuple) leaves its range."""
    for path, (holds, text, largest) in ranges.items():
        value = get(config, path)
        for number in value if isinstance(value, tuple) else (value,):
            if not holds(number):
                raise UserError(f"{path}={value} {text}")
            if number > largest:
                raise UserError(f"{path}={value} must be at most {largest}")


def nearest_multiples(value: int, step: int) -> str:
    """Return "16 or 24": the multiples of `step` next to `value`, which is none of them."""
    below = value // step * step
    return _either(below, below + step)


def nearest_that_work(value: int, works: Callable[[int], bool], reach: int) -> str:
    """Return "16 or 24": the numbers next to `value`, at most `reach` from it, that work."""
    below = next((n for n in range(value - 1, max(value - reach, 1) - 1, -1) if works(n)), 0)
    above = next((n for n in range(value + 1, value + reach + 1) if works(n)), 0)
    return _either(below, above)


def _either(*numbers: int) -> str:
    possible = [str(n) for n in numbers if 0 < n <= LARGEST]
    return " or ".join(possible) or "a smaller number"
