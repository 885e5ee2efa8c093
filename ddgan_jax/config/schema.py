"""Describe a field of a config: its default, its unit, its possible values and its meaning.

Each field is declared once, as a `Field`. The declarations give the configs with their defaults
(`make`), the checks of single fields (`check_group`), the words of `ddgan show` about a field, and
the reference in docs/config.md.

Every number has an upper bound, so that code behind a check may count up to it and make arrays of
that length. The bounds are far above every published model.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.errors import UserError, did_you_mean, shown

# No number of a config or a flag is above it: sizes, counts and steps are int32 on the devices.
LARGEST = 2**31 - 1
LARGEST_IMAGE = 8192  # pixels
# Images of one command, which holds a few numbers about each of them in memory.
MOST_IMAGES = 10_000_000
# Ten times the steps of the diffusion models that need the most.
MOST_TIMESTEPS = 10_000
# Channels of any layer at full width, and entries of any embedding.
MOST_CHANNELS = 65_536
# Layers of one level of a network, or of a dense network.
MOST_LAYERS = 100
MOST_CLASSES = 1_000_000

# Entries of a tuple: a network of more levels would need images of 2^32 pixels.
MOST_ENTRIES = 32
# Characters: the length of the longest path on Linux.
LONGEST_STRING = 4096
# Entries or characters of a value that a message is made from, more than it shows.
_BEGINNING = 100

_KINDS = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a tuple",
}


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
      default: The value that it has unless a config file or the command line changes it. Its type
        is the field's type; a field whose default is a float takes integers as well. A tuple takes
        entries of the type of its first one; an empty tuple takes integers.
      sentence: What the field means, in one sentence.
      unit: Of the number, such as "pixels"; "" without.
      choices: The values that it may have; () means any of the type.
      above, at_least, below, at_most: The range of the number, or of each entry of a tuple. None
        means that this side has no bound of its own.
      needs: Values of other fields of the same group without which nothing reads this field. True
        stands for "not 0" where the other field is a number, and False for 0.
      may_change: Whether it may differ when a run resumes, since no step computes anything else.
      is_local_path: Whether it names a place on a user's machine, which an export must not reveal.
    """

    default: Any
    sentence: str
    unit: str = ""
    _: dataclasses.KW_ONLY
    choices: tuple[str, ...] = ()
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float = LARGEST
    needs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    may_change: bool = False
    is_local_path: bool = False

    @property
    def kind(self) -> str:
        """Return the type of the field's values with its article, for messages and the docs."""
        return _KINDS[type(self.default)]

    @property
    def range(self) -> str:
        """Return what a number must fulfil, such as "must be positive"; "" for all numbers."""
        if self.above is not None:
            return "must be positive" if self.above == 0 else f"must be above {self.above}"
        if self.below is not None:
            return f"must be at least {self.at_least} and less than {self.below}"
        if self.at_least is not None:
            return f"must be at least {self.at_least}" if self.at_least else "must not be negative"
        return ""

    def check(self, path: str, value: Any) -> None:
        """Refuse a value that the field cannot have. path: the field's full name for messages.

        Takes any value at all, and little time and memory for it. Raises UserError.
        """
        if self.choices:
            # No type is named here: the list of choices tells more than "is not a string".
            if not isinstance(value, str) or value not in self.choices:
                nearest = did_you_mean(value, self.choices) if isinstance(value, str) else ""
                known = ", ".join(self.choices)
                raise UserError(f"{path}={_beginning(value)} is not one of {known}{nearest}")
            return
        if not _has_type_of(self.default, value):
            # People write a list or a single number where a tuple is needed; an example shows one.
            example = f" such as {self.default}" if isinstance(self.default, tuple) else ""
            raise UserError(f"{path}={_beginning(value)} is not {self.kind}{example}")
        # Sizes come first, so that no comparison or message below meets a huge value.
        _check_size(path, value)
        for number in value if isinstance(value, tuple) else (value,):
            if not self._is_in_range(number):
                raise UserError(f"{path}={value} {self.range}")
            if not isinstance(number, str) and number > self.at_most:
                raise UserError(f"{path}={value} must be at most {self.at_most}")

    def _is_in_range(self, number: Any) -> bool:
        return (
            (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.below is None or number < self.below)
        )

    def is_read(self, group: Mapping[str, Any]) -> bool:
        """Return whether anything reads the field in this group, as `needs` says."""
        return all(
            # True and False in `needs` also speak of numbers, of which every one but 0 is true.
            bool(group[other]) == value if isinstance(value, bool) else group[other] == value
            for other, value in self.needs.items()
        )

    def needed(self, group: Mapping[str, Any]) -> str:
        """Return what `needs` asks for, such as "fir=True and decay_steps > 0", for messages."""
        return " and ".join(_condition(n, v, group[n]) for n, v in self.needs.items())


def _condition(name: str, value: Any, example: Any) -> str:
    # In `needs` True and False also stand for numbers above 0 and for 0.
    if isinstance(value, bool) and not isinstance(example, bool):
        return f"{name} > 0" if value else f"{name}=0"
    return f"{name}={value!r}"


def positive(default: Any, sentence: str, unit: str = "", **more: Any) -> Field:
    """Return a field of a number above 0, or of a tuple of them. more: attributes of `Field`."""
    return Field(default, sentence, unit, above=0, **more)


def not_negative(default: Any, sentence: str, unit: str = "", **more: Any) -> Field:
    """Return a field of a number that is 0 or more. more: attributes of `Field`."""
    return Field(default, sentence, unit, at_least=0, **more)


Section = dict[str, Field]


def make(section: Section) -> ConfigDict:
    """Return a group of fields with their defaults."""
    return ConfigDict({name: field.default for name, field in section.items()})


def changeable(section: Section) -> Section:
    """Return the section with fields that may all differ when a run resumes."""
    return {n: dataclasses.replace(field, may_change=True) for n, field in section.items()}


def paths(sections: Mapping[str, Section], attribute: str) -> tuple[str, ...]:
    """Return the full names, such as "train.seed", of the fields with a true attribute."""
    return tuple(
        f"{name}.{key}"
        for name, section in sections.items()
        for key, field in section.items()
        if getattr(field, attribute)
    )


def check_group(prefix: str, fields: Any, section: Section, *, complete: bool = True) -> None:
    """Refuse a group of fields with unknown names or with values that a field cannot have.

    prefix: the group's name with a dot. fields: anything at all. complete: also refuse a group that
    lacks fields. Raises UserError.
    """
    check_names(prefix, fields, section)
    for name, field in section.items():
        if name in fields:
            field.check(f"{prefix}{name}", fields[name])
        elif complete:
            raise UserError(f"{prefix}{name} is missing")


def check_names(prefix: str, fields: Any, known: Mapping[str, Any]) -> None:
    """Refuse a value that is no group of fields, and a group with unknown names.

    prefix: the group's name with a dot, "" for a whole config. Raises UserError.
    """
    check_is_group(prefix, fields)
    for name in fields:
        if not isinstance(name, str) or name not in known:
            # Names are suggested with their prefix, as the user would type them.
            others = (prefix + other for other in known)
            nearest = did_you_mean(prefix + name, others) if isinstance(name, str) else ""
            raise UserError(f"{prefix}{shown(name)} is not a field{nearest}")


def check_is_group(prefix: str, fields: Any) -> None:
    """Refuse a value that is no group of fields. prefix: see `check_names`. Raises UserError."""
    if not isinstance(fields, Mapping | ConfigDict):
        group = prefix.removesuffix(".") or "this"
        raise UserError(f"{group} is no group of fields but {_beginning(fields)}")


def _has_type_of(example: Any, value: Any) -> bool:
    if isinstance(example, tuple):
        # The tuples that are empty by default hold resolutions, which are integers.
        entry = example[0] if example else 0
        return isinstance(value, tuple) and all(_has_type_of(entry, v) for v in value)
    # Types are compared exactly, since True is an int in Python and no number of steps.
    if isinstance(example, float):
        return type(value) in (int, float)
    return type(value) is type(example)


def _check_size(path: str, value: Any) -> None:
    """Refuse values so large that looking at them further would take time or memory."""
    if isinstance(value, str) and len(value) > LONGEST_STRING:
        raise UserError(f"{path}={_beginning(value)} is longer than {LONGEST_STRING} characters")
    if isinstance(value, tuple) and len(value) > MOST_ENTRIES:
        raise UserError(
            f"{path}={_beginning(value)} has {len(value):,} entries; {MOST_ENTRIES} are possible"
        )
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise UserError(f"{path}={_beginning(value)} is not finite")
        if isinstance(number, int | float) and abs(number) > LARGEST:
            raise UserError(f"{path}={_beginning(value)} must lie between 0 and 2^31 - 1")


def _beginning(value: Any) -> str:
    """Return the beginning of a value for a message, without a look at the rest of it."""
    if isinstance(value, str):
        return shown(repr(value[:_BEGINNING]))
    if isinstance(value, tuple | list):
        return shown(value[:_BEGINNING])
    # Its content is never printed: it may be of any size and depth.
    if isinstance(value, Mapping | ConfigDict):
        return f"a group of {len(value)} fields"
    return shown(value)
