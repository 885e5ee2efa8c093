"""Spell flags with hyphens, and read the spellings that people use for flags and integers."""

import re
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction

# The name of a flag among the arguments, without a value behind it.
_NAME = re.compile(r"(?<=^--)\w[\w.-]*(?==|$)")
# Another spelling of a name, and the one that commands declare.
_OTHER_SPELLINGS = {"license": "licence"}
# Few digits in every part, so that no power of ten is made that nobody could want.
_SHORT = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(?:[eE]\+?(\d{1,2})|([kKM]))", re.ASCII)
_EXPONENTS = {"k": 3, "K": 3, "M": 6}
_FLAG = re.compile(r"--?([a-zA-Z][\w.]*)(?:=(.*))?", re.DOTALL)


def spell(name: str) -> str:
    """Return a flag as users read it. name: its name in Python, such as "allow_small"."""
    # The fields of a config have the names that the config file gives them.
    return f"--{name if name.startswith('config.') else name.replace('_', '-')}"


def declared(argument: str, names: Collection[str]) -> str:
    """Return an argument with the name by which its flag is declared: underscores for hyphens.

    names: the flags of the command. What is no flag, and the value behind "=", stay as they are.
    """

    def name(match: re.Match[str]) -> str:
        typed = match[0].replace("-", "_")
        other = _OTHER_SPELLINGS.get(typed, typed)
        return other if other in names and typed not in names else typed

    return _NAME.sub(name, argument)


def plain(text: str) -> str:
    """Return the digits of a number such as "5e4" or "50k"; any other text as it is.

    A number that is not whole, such as 1.5, stays as it is too: the caller refuses it.
    """
    match = _SHORT.fullmatch(text)
    if not match:
        return text
    number, exponent, suffix = match.groups()
    # Fractions are exact: no rounding makes a whole number of another one.
    value = Fraction(number) * 10 ** (int(exponent) if exponent else _EXPONENTS[suffix])
    return str(value.numerator) if value.denominator == 1 else text


def in_digits(argv: Sequence[str], is_integer: Callable[[str], bool]) -> list[str]:
    """Return the arguments with the values of integer flags in digits.

    argv: flags as "--name=value", or as "--name" and "value". is_integer: says of a flag's name
    whether it takes an integer.
    """
    result: list[str] = []
    # Whether the flag before this argument takes it as its value.
    is_value = False
    for argument in argv:
        match = _FLAG.fullmatch(argument)
        name, value = match.groups() if match and is_integer(match[1]) else (None, None)
        if value is not None:
            argument = argument.removesuffix(value) + plain(value)
        elif is_value:
            argument = plain(argument)
        is_value = name is not None and value is None
        result.append(argument)
    return result
