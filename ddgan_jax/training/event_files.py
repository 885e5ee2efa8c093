"""Write TensorBoard's event files without TensorFlow and in the caller's thread.

This uses the part of tensorboardX that writes a file, not its SummaryWriter. That one hands events
to a thread of its own. On a full disk the thread ends with a traceback, its queue fills up, and the
next calls wait for ever (seen with version 2.6.5); and its `flush` does not wait for the queue, so
that a kill may lose what seemed to be written. Here a full disk is an OSError where it is met.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

# protobuf makes these classes at run time, where no type checker sees them.
Event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
SessionLog: Any = event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]
Summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]


class EventFile:
    """A new event file in a folder. Every method raises OSError if it cannot write."""

    def __init__(self, folder: str | os.PathLike, first_step: int | None = None):
        """Create the file in `folder`, which exists.

        first_step: the first step that this file may hold. TensorBoard hides the events of that
        step and later ones in older files: a resumed run does those steps again. None: the file
        goes on where the one before ended.
        """
        # The name that tensorboardX chooses counts in seconds. A quick restart must not write over
        # the file before.
        self._events = EventsWriter(os.path.join(folder, "events"), f".{time.time_ns()}")
        if first_step is not None:
            log = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(step=first_step, wall_time=time.time(), session_log=log))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._write(step, (summary.scalar(name, value) for name, value in scalars.items()))

    def write_image(self, step: int, name: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        """Add an image with 1 or 3 channels."""
        self._write(step, [summary.image(name, image, dataformats="HWC")])

    def write_text(self, name: str, markdown: str) -> None:
        """Add a text that stands for the whole run."""
        self._write(0, [summary.text(name, markdown)])

    def write_hparams(self, fields: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Add a row to the table of hyper-parameters. metrics: tags of scalars to show in it."""
        self._write(0, summary.hparams(fields, dict.fromkeys(metrics)))

    def flush(self) -> None:
        """Wait until everything that was added is on the disk."""
        self._events.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._events.close()

    def _write(self, step: int, parts: Iterable[Any]) -> None:
        whole = Summary(value=[value for part in parts for value in part.value])
        self._events.write_event(Event(step=step, wall_time=time.time(), summary=whole))
