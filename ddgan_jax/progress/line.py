"""Write the line of a terminal that moves, and take it away while others write there."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Protocol, TextIO

# Seconds between two drawings of the line.
TICK = 0.2


class Shown(Protocol):
    """What a line shows.

    stream: the terminal. gives_way: it is closed as soon as anything else is shown or printed.
    """

    stream: TextIO
    gives_way: bool

    def line(self, columns: int) -> str:
        """Return the line as it is now, of at most so many columns."""
        ...


class Line:
    """The line that moves on a terminal, which belongs to the innermost open display."""

    def __init__(self) -> None:
        # Held by whoever writes to the terminal. The stream that the line is written to may ask for
        # it once more.
        self.lock = threading.RLock()
        self.displays: list[Shown] = []
        # The text on the terminal, and the stream that it was written to.
        self._shown, self._on = "", sys.stderr
        self._writing = False
        # Somebody else has begun a line, which is not to be written over.
        self._is_taken = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, display: Shown) -> None:
        """Give the line to a display, until it is closed."""
        with self.lock:
            self._make_way()
            self.displays.append(display)
            self.draw()
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._tick, args=(self._stop,), name="progress", daemon=True
                )
                self._thread.start()

    def close(self, display: Shown) -> None:
        """Take the display's line away; when this returns, nothing is written for it any more."""
        with self.lock:
            thread = self._thread
            self._remove(display)
        if thread is not None and self._thread is None:
            thread.join()

    def _remove(self, display: Shown) -> None:
        if display in self.displays:
            self._erase()
            self.displays.remove(display)
        if not self.displays:
            self._stop.set()
            self._thread = None

    def _make_way(self) -> None:
        """Take away the displays that give way to anything else."""
        for display in [display for display in self.displays if display.gives_way]:
            self._remove(display)

    def draw(self) -> None:
        """Write the line as it is now, if it has changed."""
        with self.lock:
            if not self.displays or self._is_taken:
                return
            display = self.displays[-1]
            columns = _columns(display.stream)
            # The last column stays empty, where some terminals begin the next line.
            text = display.line(columns - 1)
            if text != self._shown:
                # The cursor goes back to the beginning, so that ^C, which the terminal shows where
                # the cursor is, makes no line too long.
                padded = text.ljust(min(len(self._shown), columns))
                self._write(display.stream, f"\r{padded}\r")
                self._shown, self._on = text, display.stream

    @contextlib.contextmanager
    def away(self, timeout: float = -1, ends: str = "\n") -> Iterator[bool]:
        """Take the line away while somebody else writes; yield whether it was there.

        timeout: seconds after which this goes on without, -1 for never. ends: the last character
        of what is written, for the line comes back only at the start of one.
        """
        if not self.lock.acquire(timeout=timeout):
            yield False
            return
        try:
            # The line itself comes this way, too, if the stream it is written to asks for room.
            if self._writing:
                yield False
                return
            was_there = bool(self._shown)
            self._erase()
            self._make_way()
            yield was_there
            self._is_taken = ends not in "\r\n"
        finally:
            self.lock.release()

    def end(self, timeout: float) -> bool:
        """Take the line away for good, since the process ends; return whether it was there.

        timeout: seconds after which this gives up.
        """
        # Nobody draws after this, since the lock is not given back.
        if not self.lock.acquire(timeout=timeout):
            return False
        was_there = bool(self._shown)
        self._erase()
        return was_there

    def _erase(self) -> None:
        if self._shown:
            blank = " " * min(len(self._shown), _columns(self._on))
            self._write(self._on, f"\r{blank}\r")
            self._shown = ""

    def _write(self, stream: TextIO, text: str) -> None:
        self._writing = True
        # A window that was closed is no reason to end the work.
        with contextlib.suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()
        self._writing = False

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(TICK):
            self.draw()


# A terminal has one line, whoever writes there: this is the only instance.
LINE = Line()


def is_terminal(stream: TextIO) -> bool:
    """Return whether a line may move there; NO_COLOR and TERM=dumb ask for plain lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def _columns(stream: TextIO) -> int:
    try:
        # 0 stands for a terminal that does not tell its size.
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
