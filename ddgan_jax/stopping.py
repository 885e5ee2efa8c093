"""Ending a run between two steps when the user or the system asks for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

from ddgan_jax.hosts import RUN_AGAIN

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal asked this process, or any process of the job, to stop."""

    signal_number: int | None = None

    def at(self, step: int) -> bool:
        """Whether to stop after `step`; to be asked once after each, by every process.

        All processes of a job get the same answer: JAX spreads the notice and chooses a step that
        none of them has passed.
        """
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal_number = signal.SIGTERM
        return self.signal_number is not None

    def leave(self) -> None:
        """Ends the process: KeyboardInterrupt for Ctrl-C, else exit with hosts.RUN_AGAIN."""
        if self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(RUN_AGAIN)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first Ctrl-C or SIGTERM into a request; the second has its usual effect.

    An exception in the middle of a step would leave a state whose buffers are already donated. A
    job of several processes leaves SIGTERM to JAX, which tells the others.
    """
    request = StopRequest()
    handled = SIGNALS if jax.process_count() == 1 else (signal.SIGINT,)
    usual = {number: signal.getsignal(number) for number in handled}

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, usual[number])
        if jax.process_count() > 1:
            signal.raise_signal(signal.SIGTERM)
        else:
            request.signal_number = number

    for number in handled:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
