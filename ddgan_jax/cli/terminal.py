"""Standard output and error of the program: what is printed must not trick or end anybody."""

import contextlib
import io
import os
import sys
from typing import Any

from ddgan_jax.errors import printable

_CURSOR_UP = "\x1b[A"  # how progress bars below one another are reached


class PrintableStream:
    """A text stream on which control characters of foreign names are shown and not obeyed.

    A full disk behind it is remembered in `failure` and disturbs nobody: training is not to end
    because its log is full. A reader that went away is another matter, and raises BrokenPipeError.
    """

    def __init__(self, stream: io.TextIOWrapper):
        """stream: where the text goes; its characters that have no encoding become escapes."""
        stream.reconfigure(errors="backslashreplace")
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text; return its length."""
        if text.replace(_CURSOR_UP, "").strip("\n"):
            # Progress bars begin and end a line anew; in between that would hide what stands there.
            middle = text.strip("\r")
            start = text[: len(text) - len(text.lstrip("\r"))]
            end = text[len(start) + len(middle) :]
            text = start + printable(middle).replace("\r", "\\r") + end
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written."""
        self._try(self._stream.flush)

    def _try(self, act: Any, *arguments: Any) -> None:
        try:
            act(*arguments)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.failure = self.failure or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect_streams() -> None:
    """Put PrintableStreams in the place of the process's standard output and error.

    Closed ones lead nowhere. It changes the whole process: it is for programs alone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w")  # noqa: SIM115  the process keeps it
        setattr(sys, name, PrintableStream(stream))


def output_failure() -> OSError | None:
    """Return why standard output could not be written, if so.

    Called at the end of the program: nothing is tried again after it.
    """
    stream = sys.stdout
    if not isinstance(stream, PrintableStream):
        return None
    stream.flush()
    if stream.failure is not None:
        # The interpreter flushes once more at exit, and would fail.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return stream.failure
