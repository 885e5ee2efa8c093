"""Protect standard output and error from control characters in foreign names, and a full disk."""

import contextlib
import io
import os
import sys
from typing import Any

from ddgan_jax import progress
from ddgan_jax.errors import printable

# tqdm prints this to reach an upper one of several progress bars.
_CURSOR_UP = "\x1b[A"


class PrintableStream:
    """A text stream that prints control characters as escapes, so that no terminal obeys them.

    The first error of writing is kept in `failure` and not raised: training does not end because
    the disk of its log is full. A closed pipe raises BrokenPipeError, since nobody reads on.
    """

    def __init__(self, stream: io.TextIOWrapper):
        """Print to `stream`, where characters that its encoding lacks become escapes."""
        # A locale such as C has no encoding for names in other scripts, and printing one must not
        # fail.
        stream.reconfigure(errors="backslashreplace")
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text; return its length."""
        # Texts that only move the cursor are left as they are, and so are line breaks.
        if text.replace(_CURSOR_UP, "").strip("\n"):
            # Progress bars return to the start of the line at the start or the end of a text. In
            # the middle of one, a carriage return would hide the text before it.
            middle = text.strip("\r")
            start = text[: len(text) - len(text.lstrip("\r"))]
            end = text[len(start) + len(middle) :]
            text = start + printable(middle).replace("\r", "\\r") + end
        # The line of a piece of work that goes on leaves the terminal for this moment.
        if text and self._stream.isatty():
            with progress.away(ends=text[-1]):
                self._try(self._stream.write, text)
        else:
            self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; an error is kept in `failure`, as by `write`."""
        self._try(self._stream.flush)

    def _try(self, act: Any, *arguments: Any) -> None:
        try:
            act(*arguments)
        except BrokenPipeError:
            raise
        except OSError as error:
            # The first error names the cause; those after it often only follow from it.
            self.failure = self.failure or error

    def __getattr__(self, name: str) -> Any:
        # Everything else, such as `isatty` and `encoding`, is that of the stream itself.
        return getattr(self._stream, name)


def protect_streams() -> None:
    """Replace the process's standard output and error by PrintableStreams.

    Output to a closed stream is dropped. This changes the whole process, so that only a program
    may call it.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Python sets a stream to None if the process was started with it closed.
        if stream is None:
            stream = open(os.devnull, "w")  # noqa: SIM115  the process keeps it
        setattr(sys, name, PrintableStream(stream))


def output_failure() -> OSError | None:
    """Return the first error of writing to standard output, or None.

    For the end of the program: after an error, standard output is closed for good.
    """
    stream = sys.stdout
    # A program that calls `main` as a function keeps its own streams.
    if not isinstance(stream, PrintableStream):
        return None
    stream.flush()
    if stream.failure is not None:
        # The interpreter flushes once more at exit, which would fail and print a traceback.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return stream.failure
