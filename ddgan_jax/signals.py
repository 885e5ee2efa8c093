"""Signals of the program `ddgan`: noticed at once, by a thread that does nothing else.

Python runs a signal's handler between two instructions of the main thread. Compiling takes minutes
within one instruction, and an exception raised in between may strike a callback whose caller drops
it. So the handlers here do nothing. The system's own part of them writes the signal's number into a
pipe, and the thread at its other end acts: it ends the process, or, where training asked for that,
it passes the request on. Ending in any place is safe, since files appear whole or not at all.

Signals that were ignored when the program began stay ignored, as `nohup` and shells want it.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

RUN_AGAIN = 75  # exit code (EX_TEMPFAIL): stopped early, the same command goes on
INTERRUPTED = 128 + signal.SIGINT  # what shells report after Ctrl-C
WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

Ask = Callable[[int], None]


class _Listener:
    """The program's state as far as signals are concerned; there is one of it."""

    def __init__(self) -> None:
        self.program = "ddgan"
        self.consequence = "stopped"  # what an end in this place means, in words
        self.ask: Ask | None = None  # where the first signal goes instead of ending the process
        self.doing = ""  # what is finished after it
        self.terminals: list[int] = []  # standard output and error, as far as they are terminals

    def notice(self, number: int) -> None:
        """Act upon a signal."""
        if number == signal.SIGHUP:
            self._leave_terminals()
        ask, self.ask = self.ask, None
        if ask is None:
            self._end(number)
        again = "; once more ends at once" if number == signal.SIGINT else ""
        self._say(f"{_name(number)} noticed: {self.doing}{again}")
        ask(number)

    def _end(self, number: int) -> NoReturn:
        word = "interrupted" if number == signal.SIGINT else f"ended by {_name(number)}"
        self._say(f"{word}; {self.consequence}")
        # A main thread that waits for its output's reader would hold up a flush for ever.
        flush = threading.Thread(target=_flush, daemon=True)
        flush.start()
        flush.join(0.5)
        if atomic := sys.modules.get("ddgan_jax.files.atomic"):
            atomic.remove_unfinished()
        os._exit(INTERRUPTED if number == signal.SIGINT else RUN_AGAIN)

    def _say(self, text: str) -> None:
        # Not through sys.stderr, in the middle of whose work the main thread may be. On a terminal
        # a progress bar may stand in the line.
        start = "\r\n" if 2 in self.terminals else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{start}{self.program}: {text}\n".encode(errors="backslashreplace"))

    def _leave_terminals(self) -> None:
        """Send output that went to a terminal nowhere: it is gone, and writing would fail."""
        for descriptor in self.terminals:
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
        self.terminals = []


_listener = _Listener()


def listen() -> None:
    """Begin to notice signals; what the program does first.

    It changes the whole process and must run in the main thread: it is for programs alone.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _listener.terminals = [descriptor for descriptor in (1, 2) if _is_terminal(descriptor)]
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in WATCHED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _do_nothing)

    def watch() -> None:
        while numbers := os.read(reading, 64):
            for number in numbers:
                if number in WATCHED:
                    _listener.notice(number)

    threading.Thread(target=watch, name="signals", daemon=True).start()


def reclaim() -> None:
    """Notice again the signals that a library has taken since `listen`; in the main thread.

    JAX takes SIGTERM when it joins a job, also one of a single process.
    """
    for number in WATCHED:
        if signal.getsignal(number) is _do_nothing:
            signal.signal(number, _do_nothing)


def describe(program: str, consequence: str) -> None:
    """Say what the lines about signals begin with, and what an end means for the user's work."""
    _listener.program, _listener.consequence = program, consequence


@contextlib.contextmanager
def ask_first(ask: Ask, doing: str) -> Iterator[None]:
    """Pass the first signal within the context on, as ask(number), instead of ending the process.

    doing: what will be finished then, for the line that says that the signal was noticed. The
    second signal ends the process. Does nothing unless `listen` was called.
    """
    _listener.doing, _listener.ask = doing, ask
    try:
        yield
    finally:
        _listener.ask = None


def _do_nothing(number: int, frame: object) -> None:
    """Stand in for a handler, so that Python tells the pipe and does nothing else."""


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
