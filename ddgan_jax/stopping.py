"""Ending a run between two steps when the user or the system asks for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal asked this process to stop, and which."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def leave(self) -> None:
        """Ends the process as the signal would have: KeyboardInterrupt for Ctrl-C, else exit."""
        if self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.signal_number or 0))


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first Ctrl-C or SIGTERM into a request; the second has its usual effect.

    An exception in the middle of a step would leave a state whose buffers are already donated.
    """
    request = StopRequest()
    usual = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal_number = number
        signal.signal(number, usual[number])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
