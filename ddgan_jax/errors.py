"""Define the exceptions that are written for the user, and make the parts of their messages."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

# Characters of a value in a message.
LONGEST_SHOWN = 60
# Characters of a word that are compared with known words, in a time that grows with their square.
LONGEST_WORD = 200
# Modules that training, figures and preparing data import. Drawing from an export needs none of
# them, and an installation for that alone, see requirements-sample.txt, is without them.
NOT_FOR_SAMPLING = (
    "array_record",
    "clu",
    "grain",
    "jinja2",
    "matplotlib",
    "orbax",
    "pyarrow",
    "tensorboardX",
    "tensorflow_datasets",
    "tensorstore",
)


class UserError(ValueError):
    """A mistake that the user can mend: in an argument, a setting, a path, a file on disk.

    The message is one line that says what is wrong and what to do. It names parameters in
    backticks, `step=7`, which the command line prints as flags, and fields of a config plainly,
    train.seed=0. The command line exits with code 2. Any other exception is a bug and keeps its
    traceback. It is a ValueError because programs that call this package expect one for a wrong
    argument.
    """


class BusyError(UserError):
    """Another process is writing the place that this one needs; later the command will work.

    The command line exits with code 75, and launchers start the same command again.
    """


class NotFiniteError(UserError):
    """A number that should be finite is not, since the model has diverged."""


@contextlib.contextmanager
def whole_install(what: str) -> Iterator[None]:
    """Turn the lack of a package of NOT_FOR_SAMPLING inside the context into a UserError.

    what: what needs the package, as the subject of the message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in NOT_FOR_SAMPLING:
            raise
        raise UserError(
            f"{what} needs the whole install, and {package} is missing: pip install ddgan-jax"
        ) from error


def printable(text: str) -> str:
    r"""Return the text with escapes such as "\x1b" for control characters and undecodable bytes.

    The names of files may come from anybody, and a terminal obeys the control characters in them.
    Line ends, tabs and the carriage returns of progress bars stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t\r" else _escaped(c) for c in text)


def shown(value: object, longest: int = LONGEST_SHOWN) -> str:
    """Return the text of a value for a message: printable, in one line of `longest` characters."""
    try:
        text = printable(" ".join(str(value).split()))
    # Values come from anywhere. For example str() raises ValueError for integers of more than 4,300
    # digits.
    except Exception:
        text = f"a value of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def reason(error: BaseException) -> str:
    """Return the first line of an exception's message, or its name, for the end of a message."""
    # The text of an OSError repeats the number and the path, which the caller's message has
    # already.
    text = getattr(error, "strerror", None) or str(error)
    lines = [line for line in str(text).splitlines() if line.strip()]
    return shown(lines[0], 200) if lines else type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message that names the nearest known word; "" if none is near."""
    nearest = difflib.get_close_matches(word[:LONGEST_WORD], list(known), n=1, cutoff=0.5)
    return f"; did you mean {shown(nearest[0], 300)}?" if nearest else ""


def _escaped(character: str) -> str:
    code = ord(character)
    # Python represents a byte that is not UTF-8 in the name of a file as one of these code points.
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
