"""The exceptions that a user is meant to read, and how text from outside is shown."""

import difflib
from collections.abc import Iterable

LONGEST_SHOWN = 60  # characters of a value in a message
LONGEST_WORD = 200  # characters that are compared with what is known, which takes their square


class UserError(Exception):
    """Something the user can mend: a setting, a path, a file on disk.

    The message is one line that says what is wrong and what to do. The command line prints it
    without a traceback and exits with code 2; everything else is a bug and keeps its traceback.
    """


class BusyError(UserError):
    """A place that another process holds now: the same command will do later.

    The command line exits with code 75, upon which launchers start the command again.
    """


class NotFiniteError(UserError):
    """Numbers that should be finite and are not: a model that has diverged."""


def printable(text: str) -> str:
    r"""Return the text with control characters and bytes that are no text as escapes, "\x1b".

    Names of files come from anybody, and a terminal obeys the control characters in them. Line
    ends, tabs and the carriage returns of progress bars stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t\r" else _escaped(c) for c in text)


def shown(value: object, longest: int = LONGEST_SHOWN) -> str:
    """Return a value for a message: in one line, printable, and cut to `longest` characters."""
    try:
        text = printable(" ".join(str(value).split()))
    except Exception:  # no integer of over 4,300 digits has a text, nor has what holds one
        text = f"a value of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def reason(error: BaseException) -> str:
    """Return what an exception says, for the end of a message: its first line, or its name."""
    text = getattr(error, "strerror", None) or str(error)
    lines = [line for line in str(text).splitlines() if line.strip()]
    return shown(lines[0], 200) if lines else type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message that names the nearest known word; "" if none is near."""
    nearest = difflib.get_close_matches(word[:LONGEST_WORD], list(known), n=1, cutoff=0.5)
    return f"; did you mean {shown(nearest[0], 300)}?" if nearest else ""


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no UTF-8, as Python holds it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
