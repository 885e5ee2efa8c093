"""Trace some steps of a run with JAX's profiler, for `ddgan train --profile`."""

import contextlib
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import jax
from etils import epath

from ddgan_jax.files.atomic import write_errors
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.state import Metrics

# Steps of a process before the trace: each of its two programs, with R1 and without, is compiled in
# one of them.
SKIPPED = 2


class Profile(AbstractContextManager):
    """Traces the steps of this process from its third one on; the trace goes into the run folder.

    A trace is of one process and the devices that it drives.
    """

    def __init__(self, folder: RunFolder, first: int, num_steps: int, say: Callable[[str], None]):
        """Take the steps done before this process, and how many to trace: 0 for none.

        say: gets one line, where the trace is and how to look at it.
        """
        self._folder, self._say = folder, say
        self._begin, self._num_steps = first + SKIPPED, num_steps
        self._trace = contextlib.ExitStack()
        self._is_on = self._is_done = False

    def after(self, step: int, metrics: Metrics) -> None:
        """Begin or end the trace if it is time. metrics: of `step`, on the devices."""
        if not self._num_steps or step not in (self._begin, self._begin + self._num_steps):
            return
        # The trace is to have whole steps, and the loop runs ahead of the devices.
        jax.block_until_ready(metrics)
        if step == self._begin:
            self._trace.enter_context(_trace(self._folder.profile))
            self._is_on = True
        else:
            self._end(f"steps {self._begin + 1} to {step}")

    def close(self, *exception: object) -> None:
        """End a trace that is going on; leaving the context does the same."""
        if self._is_on:
            self._end(f"the steps from {self._begin + 1} on")
        elif self._num_steps and not self._is_done:
            self._say("no trace: the run ended before the third step of this process")

    __exit__ = close

    def _end(self, steps: str) -> None:
        self._is_on, self._is_done = False, True
        self._trace.close()
        path = shlex.quote(os.fspath(self._folder.profile))
        self._say(
            f"trace of {steps}: {path}; to see it: pip install xprof; xprof server --logdir={path}"
        )


@contextlib.contextmanager
def _trace(folder: epath.Path) -> Iterator[None]:
    """Write a trace of what happens in the context into `folder`, which may be in a bucket."""
    with contextlib.ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddgan-profile-")))
        with jax.profiler.trace(here):
            yield
        # The profiler writes local files alone.
        with write_errors(folder):
            for file in sorted(path for path in here.rglob("*") if path.is_file()):
                copy = folder / file.relative_to(here)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
