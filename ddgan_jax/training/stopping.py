"""Ending a run between two steps when the user or the system asks for it."""

import os
import signal
from contextlib import AbstractContextManager, nullcontext

import jax
from jax.experimental import multihost_utils

from ddgan_jax import signals


class StopRequest:
    """Whether this process, or any process of its job, was asked to stop.

    This one is never asked, unless by JAX on behalf of a job of several processes: it is what
    `train` takes inside another program, whose signals are that program's business.
    """

    signal_number: int | None = None

    def at(self, step: int) -> bool:
        """Return whether to stop after `step`; to be asked once after each, by every process.

        All processes of a job get the same answer: JAX spreads the notice and chooses a step that
        none of them has passed.
        """
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal_number = self.signal_number or signal.SIGTERM
        return self.signal_number is not None

    def accepted(self) -> AbstractContextManager:
        """Give the context in which a request is worth waiting for: there is work to save."""
        return nullcontext()

    def leave(self) -> None:
        """End the process: KeyboardInterrupt for Ctrl-C, else exit with signals.RUN_AGAIN."""
        if self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(signals.RUN_AGAIN)


class SignalledStop(StopRequest):
    """What `ddgan train` uses: asked to stop by Ctrl-C, SIGTERM, SIGHUP and SIGUSR1.

    In a job of several processes SIGTERM belongs to JAX, which tells the others; the other signals
    are passed on to it.
    """

    def accepted(self) -> AbstractContextManager:
        """Give the context in which the first signal is such a request; the second one ends."""
        if jax.process_count() == 1:
            signals.reclaim()
        return signals.ask_first(self._ask, "finishing this step and saving a checkpoint")

    def _ask(self, number: int) -> None:
        if jax.process_count() > 1:
            if number != signal.SIGTERM:
                os.kill(os.getpid(), signal.SIGTERM)
            # All of them end alike, whichever met the signal.
            return
        self.signal_number = number
