"""Rewrite messages of the library in the words of the command line: parameters become flags.

The library names its parameters in backticks, since it does not know who calls it: `labels`, or
`step=7` with a value. A user of a command knows them as flags, --labels and --step=7, with hyphens:
`allow_small` is --allow-small.
"""

import re
import sys
from collections.abc import Callable, Container

from absl import flags

from ddgan_jax.cli.spelling import spell

# Flags that have another name than the parameter that they set.
FLAG_OF_PARAMETER = {"export_dir": "export", "kind": "weights", "num_steps": "denoising_steps"}

# A parameter in backticks, alone or with a value: words with spaces or dots do not match and stay.
_PARAMETER = re.compile(r"`(\w+)((?:=[^`]*)?)`")


def with_flags(message: str, known: Container[str]) -> str:
    """Return the message with the flag for each parameter in backticks that a flag sets.

    known: names of the flags of the running command. Whatever else stands in backticks, such as the
    name of a command or of a field in a file, stays as it is.
    """

    def as_flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        # A flag of the parameter's own name comes first, even if another flag could stand for it.
        flag = name if name in known else FLAG_OF_PARAMETER.get(name)
        return f"{spell(flag)}{value}" if flag is not None and flag in known else match[0]

    return _PARAMETER.sub(as_flag, message)


def reporter(values: flags.FlagValues) -> Callable[[str], None]:
    """Return a function that prints a line of progress of the library to standard error.

    values: the flags of the running command.
    """

    def report(line: str) -> None:
        # Standard output is for results, which other programs may read.
        print(with_flags(line, values), file=sys.stderr)

    return report
