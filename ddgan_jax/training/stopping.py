"""Handle requests to stop a run, which then ends between two steps, with a checkpoint."""

import os
import signal
import threading
from contextlib import AbstractContextManager, nullcontext

import jax
from jax.experimental import multihost_utils

from ddgan_jax import signals


class StopRequest:
    """Says whether this process, or any other process of its job, was asked to stop.

    This class watches no signals. It is the default of `train`, which may run inside another
    program that handles signals itself. Only JAX may ask, on behalf of a job of several processes.
    """

    signal_number: int | None = None

    def at(self, step: int) -> bool:
        """Return whether to stop after `step`; every process calls this once after each step.

        All processes of a job get the same answer: JAX spreads the notice and chooses a step that
        none of them has passed.
        """
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal_number = self.signal_number or signal.SIGTERM
        return self.signal_number is not None

    def accepted(self, step: int, num_steps: int) -> AbstractContextManager:
        """Return the context in which a request waits until the step is saved.

        step: the one that was done last. num_steps: at which the run ends.
        """
        return nullcontext()

    def leave(self) -> None:
        """End the process: KeyboardInterrupt for Ctrl-C, else exit with signals.RUN_AGAIN."""
        # A person at the keyboard wants the prompt back. Everything else is a preemption, after
        # which a launcher starts the run again.
        if self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(signals.RUN_AGAIN)


class SignalledStop(StopRequest):
    """Stops `ddgan train` upon Ctrl-C, SIGTERM, SIGHUP or SIGUSR1.

    In a job of several processes JAX handles SIGTERM and tells the other processes; any other
    signal is therefore passed on as SIGTERM.
    """

    def __init__(self) -> None:
        """Begin without a request."""
        # A request comes from the thread that handles signals, between two steps of the main one.
        self._lock = threading.Lock()
        # Steps after which `at` was called, and those of the whole run.
        self._step, self._num_steps = 0, 0

    def at(self, step: int) -> bool:
        """Return whether to stop after `step`, as `StopRequest.at` does."""
        with self._lock:
            self._step = step
            return super().at(step)

    def accepted(self, step: int, num_steps: int) -> AbstractContextManager:
        """Return the context in which the first signal is a request; a second one ends at once."""
        self._step, self._num_steps = step - 1, num_steps
        # JAX has replaced the handler of SIGTERM if it joined a job, even of a single process.
        if jax.process_count() == 1:
            signals.reclaim()
        return signals.ask_first(self._ask)

    def _ask(self, number: int) -> str:
        if jax.process_count() > 1:
            if number != signal.SIGTERM:
                os.kill(os.getpid(), signal.SIGTERM)
            # `at` hears of it from JAX, so that all processes end alike, whichever got the signal.
            return "all processes finish the same step, then a checkpoint"
        with self._lock:
            self.signal_number = number
            if self._step < self._num_steps:
                return f"finishing step {self._step + 1}, then a checkpoint"
            return "the run is at its end, and its last checkpoint is being written"
