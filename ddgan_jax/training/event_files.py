"""TensorBoard's event files through clu, without TensorFlow.

Of clu's metric writers one imports TensorFlow, the one of event files, and thereby the whole
package does. This module stands in its place: `SummaryWriter` below has the methods that this
program calls, with clu's signatures, and writes with tensorboardX. Take `metric_writers` from
here, not from clu, so that it comes after.
"""

import importlib
import os
import sys
import time
from collections.abc import Mapping

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class SummaryWriter:
    """Writes at once, in the caller's thread: a full disk raises OSError where it is met.

    tensorboardX's own writer of this name has a thread between, whose death blocks the program.
    """

    def __init__(self, log_dir: str, first_step: int = 0):
        """Starts a new file in `log_dir`; TensorBoard hides what older files say of later steps.

        first_step: the first step that this writer may write; from it on older files are hidden.
        """
        os.makedirs(log_dir, exist_ok=True)
        # The stem has seconds; a quick restart must not write over the file before.
        self._events = EventsWriter(os.path.join(log_dir, "events"), f".{time.time_ns()}")
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds one point to each curve."""
        self._write(step, summary=_merge(summary.scalar(k, v) for k, v in scalars.items()))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Adds uint8 images (H, W, C), C = 1 or 3."""
        parts = (summary.image(k, v, dataformats="HWC") for k, v in images.items())
        self._write(step, summary=_merge(parts))

    def flush(self) -> None:
        """Returns when all is on the disk."""
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._events.close()

    def _write(self, step: int, **content: object) -> None:
        self._events.write_event(Event(step=step, wall_time=time.time(), **content))


def _merge(parts: object) -> Summary:
    return Summary(value=[value for part in parts for value in part.value])


sys.modules.setdefault("clu.metric_writers.summary_writer", sys.modules[__name__])
metric_writers = importlib.import_module("clu.metric_writers")
