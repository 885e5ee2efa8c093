"""Show one piece of work: its phase, its steps, its speed and the time left."""

import collections
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from typing import TextIO, TypeVar

from ddgan_jax.progress.line import LINE, is_terminal
from ddgan_jax.progress.pace import Pace, duration, elapsed

T = TypeVar("T", bound=Sized)

# Seconds, which only go forward: the time of day may be set back.
clock = time.monotonic

# Seconds between lines where there is no terminal.
SECONDS_BETWEEN_LINES = 10.0
# A log gets a line about a compilation that took so many seconds.
SECONDS_WORTH_A_LINE = 10.0
# The speed is that of the last so many seconds.
SPEED_WINDOW = 30.0
# A line of so many columns has room for words.
WIDE = 100


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
        outer = LINE.displays[-1].stream if LINE.displays else sys.stderr
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
            LINE.open(self)

    def phase(self, text: str) -> None:
        """Say what the work is doing, such as "reading data", until a step or the next phase.

        The time of phases does not count for the speed. A log gets a line when a long compilation
        is over.
        """
        with LINE.lock:
            seconds = clock() - self._since
            is_long = self._phase.startswith("compiling") and seconds >= SECONDS_WORTH_A_LINE
            if is_long and not self.moves:
                self.message(f"{self._phase} took {duration(seconds)}")
            self._phase, self._since = text, clock()
            self._restart_clock()
            if self.moves:
                LINE.draw()

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
            with LINE.lock:
                self._numbers = {**(main or {}), **numbers}
            return
        shown = [f"{name} {value:.3g}" for name, value in numbers.items()]
        if pace:
            shown += [f"{_speed(pace[0])} images/s", f"{duration(pace[1])} left"]
        self.message("  ".join([f"step {step}/{self._total}", *shown]))

    def message(self, text: str) -> None:
        """Print a line that stays, above the one that moves."""
        if self._active:
            with LINE.away():
                # A log file shows each line at once to those who follow it.
                print(text, file=self.stream, flush=True)

    def close(self, *exception: object) -> None:
        """Take the line away; leaving the context does the same."""
        LINE.close(self)

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
        while self._pending and _is_done(self._pending[0][1]):
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


def _is_done(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    # A step that has failed is over; the main thread meets the error where it reads its numbers.
    except RuntimeError:
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
