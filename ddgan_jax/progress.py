"""Show how far long work is: its phase, its steps, its speed and the time left.

On a terminal this is one line that moves, at any width, and it is gone when the work is done. A
thread draws it, since JAX compiles for minutes within one call. Without a terminal, as in the log
of a cluster, there are plain lines.

`Display` shows one piece of work. If another begins before it ends, as an evaluation within a
training, the inner one has the line until it is done. tqdm has one width of line for all terminals,
or cuts off what stands at the end; here the fields that matter less give way.
"""

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from typing import TextIO, TypeVar

T = TypeVar("T", bound=Sized)

# Seconds, which only go forward: the time of day may be set back.
clock = time.monotonic

# Time between lines where there is no terminal.
SECONDS_BETWEEN_LINES = 10.0
# A log gets a line about a compilation that took as long as this.
SECONDS_WORTH_A_LINE = 10.0
# Time between two drawings of the line.
TICK = 0.2
# The line's speed is that of the last so many seconds.
SPEED_WINDOW = 30.0
# A line of so many columns has room for words.
WIDE = 100


class Pace:
    """Computes speed and remaining time from the times at which steps are known to be done.

    The first time only starts the clock, so that compiling does not count.
    """

    def __init__(self, num_steps: int, batch_size: int, window: float = 0.0):
        """Take the number of steps of the whole run, and the number of images in each step.

        window: Seconds over which the speed is taken, at the least from one mark to the next.
        """
        self._num_steps, self._batch_size, self._window = num_steps, batch_size, window
        self._first: tuple[int, float] | None = None
        self._recent: collections.deque[tuple[int, float]] = collections.deque()

    def mark(self, step: int, now: float) -> tuple[float, float] | None:
        """Return the images per second since the last mark, and the seconds that are left.

        step: steps done by now. now: seconds on any clock that only goes forward. The seconds left
        follow from the average speed since the first mark, for which this returns None.
        """
        self._first = self._first or (step, now)
        recent = self._recent
        recent.append((step, now))
        while len(recent) > 2 and now - recent[1][1] >= self._window:
            recent.popleft()
        # Without a step between two marks there is no speed.
        if step == recent[0][0]:
            return None
        images_per_second = (step - recent[0][0]) * self._batch_size / (now - recent[0][1])
        # Pictures and evaluations come at intervals: the average over all steps has its share of
        # them.
        seconds_per_step = (now - self._first[1]) / (step - self._first[0])
        return images_per_second, (self._num_steps - step) * seconds_per_step


def duration(seconds: float) -> str:
    """Return a duration in its largest units: "35 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def elapsed(seconds: float) -> str:
    """Return the time that something has taken so far, which moves every second: "2 min 05 s"."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


# ---------------------------------------------------------------------------- the terminal's line


class _Line:
    """The line that moves on a terminal, which belongs to the innermost open display."""

    def __init__(self) -> None:
        # Held by whoever writes to the terminal. The stream that the line is written to may ask for
        # it once more.
        self.lock = threading.RLock()
        self.displays: list[Display] = []
        # The text on the terminal, and the stream that it was written to.
        self._shown, self._on = "", sys.stderr
        self._writing = False
        # Somebody else has begun a line, which is not to be written over.
        self._is_taken = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, display: "Display") -> None:
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

    def close(self, display: "Display") -> None:
        """Take the display's line away; when this returns, nothing is written for it any more."""
        with self.lock:
            thread = self._thread
            self._remove(display)
        if thread is not None and self._thread is None:
            thread.join()

    def _remove(self, display: "Display") -> None:
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


_line = _Line()
# For everybody else who writes to the terminal.
away = _line.away
end = _line.end


def is_terminal(stream: TextIO) -> bool:
    """Return whether a line may move there; NO_COLOR and TERM=dumb ask for plain lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def _columns(stream: TextIO) -> int:
    try:
        # 0 stands for a terminal that does not tell its size.
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


# ------------------------------------------------------------------------------ one piece of work


class Display(AbstractContextManager):
    """Shows the progress of one piece of work: a line that moves on a terminal, lines elsewhere."""

    def __init__(
        self,
        total: int = 0,
        done: int = 0,
        *,
        title: str = "",
        batch_size: int = 1,
        unit: str = "",
        stream: TextIO | None = None,
        active: bool = True,
        logs: bool = False,
        phase: str = "",
        gives_way: bool = False,
    ):
        """Begin after `done` of `total` steps; a total of 0 is unknown.

        title: the name of the work. batch_size: images of a step. unit: what a step is called, ""
        for a train step. stream: where to show all this; by default beside what is shown already,
        else on stderr. active: False to show nothing. logs: print a line about the steps now and
        then where there is no terminal. phase: the first one. gives_way: this display is closed as
        soon as anything else is shown or printed.
        """
        outer = _line.displays[-1].stream if _line.displays else sys.stderr
        self.stream = stream or outer
        self._total, self._active = total, active
        # Steps that are done, and those that the caller has come to, perhaps ahead of them.
        self._done = self._reached = done
        self._title, self._unit, self._batch_size = title, unit, batch_size
        self.gives_way = gives_way
        self._phase, self._since = phase, clock()
        self._numbers: dict[str, float] = {}
        # Steps that JAX was asked for, with functions that say whether they are done.
        self._pending: collections.deque[tuple[int, Callable[[], bool]]] = collections.deque()
        self._restart_clock()
        self._logs, self._last_line = active and logs, self._since
        self.moves = active and is_terminal(self.stream)
        if self.moves:
            _line.open(self)

    def phase(self, text: str) -> None:
        """Say what the work is doing, such as "reading data", until a step or the next phase.

        The time of phases does not count for the speed. A log gets a line when a long compilation
        is over.
        """
        with _line.lock:
            seconds = clock() - self._since
            is_long = self._phase.startswith("compiling") and seconds >= SECONDS_WORTH_A_LINE
            if is_long and not self.moves:
                self.message(f"{self._phase} took {duration(seconds)}")
            self._phase, self._since = text, clock()
            self._restart_clock()
            if self.moves:
                _line.draw()

    def step(self, step: int, is_done: Callable[[], bool] | None = None) -> None:
        """Move to `step`; to be called after each, before or after it is done.

        is_done: tells without waiting whether the step is done, for work that runs behind this
        call; the line moves when it is.
        """
        if self._phase:
            self.phase("")
        self._reached = step
        if self.moves or self._logs:
            self._pending.append((step, is_done or _yes))
        if self._logs and not self.moves:
            self._log(clock())

    def counted(self, chunks: Iterable[T]) -> Iterator[T]:
        """Yield the same chunks, and move by the length of each when the next one is asked for."""
        for chunk in chunks:
            yield chunk
            self.advance(len(chunk))

    def advance(self, steps: int) -> None:
        """Move by so many steps, which are done."""
        self.step(self._reached + steps)

    def numbers(
        self,
        step: int,
        numbers: Mapping[str, float],
        pace: tuple[float, float] | None,
        main: Mapping[str, float] | None = None,
    ) -> None:
        """Show numbers of `step`, which is done by now.

        pace: from `Pace.mark`, for a line of a log; the line on a terminal has its own. main:
        numbers for the terminal that come first, since it may have room for few.
        """
        if self.moves:
            with _line.lock:
                self._numbers = {**(main or {}), **numbers}
            return
        shown = [f"{name} {value:.3g}" for name, value in numbers.items()]
        if pace:
            shown += [f"{_speed(pace[0])} images/s", f"{duration(pace[1])} left"]
        self.message("  ".join([f"step {step}/{self._total}", *shown]))

    def message(self, text: str) -> None:
        """Print a line that stays, above the one that moves."""
        if self._active:
            with _line.away():
                # A log file shows each line at once to those who follow it.
                print(text, file=self.stream, flush=True)

    def close(self, *exception: object) -> None:
        """Take the line away; leaving the context does the same."""
        _line.close(self)

    __exit__ = close

    def line(self, columns: int) -> str:
        """Return the line as it is now, of at most so many columns."""
        now = clock()
        if self._phase:
            text, tail = self._phase, f" ... {elapsed(now - self._since)}"
            return (_plain(text)[: max(columns - len(tail), 0)] + tail)[: max(columns, 0)]
        self._notice(now)
        # More may come than was announced.
        percent = f"{min(100 * self._done // self._total, 100)}%" if self._total else "..."
        # A part of other work says what it is; a training has no room for that.
        fields = {"percent": f"{self._title}: {percent}" if self._unit else percent}
        fields["count"] = self._count()
        if self._speed:
            unit = self._unit or "images"
            if unit == "images" and columns < WIDE:
                unit = "img"
            fields["speed"] = f"{_speed(self._speed[0])} {unit}/s"
            if self._total:
                fields["left"] = f"{duration(self._speed[1])} left"
        elif not self._unit:
            fields["speed"] = self._title
        # The names of numbers come from elsewhere, and are kept apart from those of fields.
        fields |= {f"_{name}": f"{name} {value:.3g}" for name, value in self._numbers.items()}
        return _fitted(fields, ("percent", "left", "count", "speed"), columns)

    def _log(self, now: float) -> None:
        """Print a line about the steps if one is due."""
        self._notice(now)
        if self._speed and now - self._last_line >= SECONDS_BETWEEN_LINES:
            speed, left = _speed(self._speed[0]), duration(self._speed[1])
            self.message(f"{self._count()}  {speed} {self._unit}/s, {left} left")
            self._last_line = now

    def _count(self) -> str:
        if not self._unit:
            return f"{self._done}/{self._total}"
        of = f" of {self._total:,}" if self._total else ""
        return f"{self._done:,}{of} {self._unit}"

    def _notice(self, now: float) -> None:
        """Find the newest step that is done."""
        before = self._done
        while self._pending and self._pending[0][1]():
            self._done = self._pending.popleft()[0]
        if self._done != before:
            self._speed = self._pace.mark(self._done, now)

    def _restart_clock(self) -> None:
        self._pace = Pace(self._total, self._batch_size, SPEED_WINDOW)
        self._speed: tuple[float, float] | None = None


def phase(text: str, *, active: bool = True, gives_way: bool = False) -> Display:
    """Return a display that says what is being done, such as "reading data", and for how long.

    On a terminal alone: elsewhere it shows nothing. active, gives_way: as `Display` takes them.
    """
    return Display(phase=text, active=active, gives_way=gives_way)


def _yes() -> bool:
    return True


def _speed(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _fitted(fields: Mapping[str, str], first: tuple[str, ...], columns: int) -> str:
    """Return as many fields as there are columns for, in their order; `first` matter most."""
    kept, used = set(), -2
    for name in [*first, *(name for name in fields if name not in first)]:
        if name in fields:
            used += 2 + len(_plain(fields[name]))
            if used > columns:
                break
            kept.add(name)
    return "  ".join(_plain(text) for name, text in fields.items() if name in kept)


def _plain(text: str) -> str:
    """Return the text with a column for each character, and none that commands the terminal."""
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)
