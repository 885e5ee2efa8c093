"""Handle the signals of the program `ddgan` at once, in a thread that does nothing else.

Python runs a signal's handler between two instructions of the main thread. That is too late while
JAX compiles, which takes minutes within one instruction; and an exception that a handler raises may
strike a callback whose caller drops it. So the handlers here do nothing. The interpreter also
writes the signal's number into a pipe, and the thread at its other end acts: it ends the process,
or passes the request on to a training run that asked for it. The process may end anywhere, since
files appear whole or not at all.

Signals that were ignored when the program began stay ignored, as `nohup` and shells expect.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from ddgan_jax import progress

# The exit code EX_TEMPFAIL of sysexits.h: stopped early, and the same command continues.
RUN_AGAIN = 75
# The exit code that shells report after Ctrl-C.
INTERRUPTED = 128 + signal.SIGINT
# Seconds that an end waits for whoever is writing to the terminal, perhaps in vain.
_PATIENCE = 0.5
WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

# Takes a signal's number, and returns what is finished before the process ends, for the message.
Ask = Callable[[int], str]


class _Listener:
    """The state of the program that concerns signals; there is one instance."""

    def __init__(self) -> None:
        self.program = "ddgan"
        # For messages: the meaning of an end at this point.
        self.consequence = "stopped"
        # It is called for the first signal instead of ending the process.
        self.ask: Ask | None = None
        # The descriptors of standard output and error, as far as they are terminals.
        self.terminals: list[int] = []

    def notice(self, number: int) -> None:
        """Pass a signal on to a training run that asked for it, or end the process."""
        if number == signal.SIGHUP:
            self._leave_terminals()
        # The request is taken away, so that a second signal ends the process.
        ask, self.ask = self.ask, None
        if ask is None:
            self._end(number)
        again = "; once more ends at once" if number == signal.SIGINT else ""
        text = f"{_name(number)} noticed: {ask(number)}{again}"
        with progress.away(timeout=_PATIENCE) as was_there:
            self._say(text, was_there)

    def _end(self, number: int) -> NoReturn:
        was_there = progress.end(timeout=_PATIENCE)
        word = "interrupted" if number == signal.SIGINT else f"ended by {_name(number)}"
        self._say(f"{word}; {self.consequence}", was_there)
        # The main thread may hold the stream's lock while it waits for a reader. A flush would then
        # wait for ever, so it gets a thread of its own and a short time.
        flush = threading.Thread(target=_flush, daemon=True)
        flush.start()
        flush.join(_PATIENCE)
        if atomic := sys.modules.get("ddgan_jax.files.atomic"):
            atomic.remove_unfinished()
        # An orderly exit would wait for the main thread, which may be in the compiler for minutes.
        os._exit(INTERRUPTED if number == signal.SIGINT else RUN_AGAIN)

    def _say(self, text: str, at_the_start: bool) -> None:
        # A terminal shows ^C, perhaps behind a line that a library has begun.
        start = "\r\n" if 2 in self.terminals and not at_the_start else ""
        # The main thread may be writing to sys.stderr just now, so this writes to the descriptor.
        with contextlib.suppress(OSError):
            os.write(2, f"{start}{self.program}: {text}\n".encode(errors="backslashreplace"))

    def _leave_terminals(self) -> None:
        """Discard further output to terminals: after SIGHUP they are gone, and writing fails."""
        for descriptor in self.terminals:
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
        self.terminals = []


_listener = _Listener()


def listen() -> None:
    """Start the thread that handles signals; the program calls this first, in its main thread.

    It changes the whole process, so no library function may call it.
    """
    reading, writing = os.pipe()
    # Python accepts no pipe for signals whose writing end could block.
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
    """Install the handlers again that a library has replaced since `listen`; in the main thread.

    JAX handles SIGTERM itself once it has joined a job, even a job of a single process.
    """
    for number in WATCHED:
        # A handler that was installed in C++ is unknown to Python, which still names ours.
        if signal.getsignal(number) is _do_nothing:
            signal.signal(number, _do_nothing)


def describe(program: str, consequence: str) -> None:
    """Set the program's name, and what an end means for the user's work, for messages."""
    _listener.program, _listener.consequence = program, consequence


@contextlib.contextmanager
def ask_first(ask: Ask) -> Iterator[None]:
    """Call ask(number) for the first signal inside the context instead of ending the process.

    A second signal ends it. This has no effect unless `listen` was called.
    """
    _listener.ask = ask
    try:
        yield
    finally:
        _listener.ask = None


def _do_nothing(number: int, frame: object) -> None:
    """Handle a signal, so that Python writes its number into the pipe and does nothing else."""


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
