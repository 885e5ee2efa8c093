"""Silence Orbax's own messages.

Orbax logs its progress, and every failure several times with a traceback, from its own threads.
Each failure also reaches the caller of a save or a restore as an exception, whose line the user
reads.
"""

import logging
import sys
from typing import Any

# Importing this replaces the logger "absl" by one that finds the callers of its messages.
import absl.logging

_installed = False


def silence() -> None:
    """Suppress Orbax's messages from now on, unless absl's verbosity is above 0.

    This changes the logging of the whole process, so only a program may call it.
    """
    global _installed
    # A second call, as in tests, would stack a second filter and hook on the first.
    if _installed:
        return
    _installed = True
    # Orbax logs through absl; failures in its event loop come from asyncio's logger.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_from_others)
    usual = sys.unraisablehook

    def pass_on(unraisable: Any) -> None:
        # When one array cannot be read or written, Orbax closes the event loop, and every other
        # array that still reports to it fails: hundreds of tracebacks about one full disk.
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = pass_on


def _is_from_others(record: logging.LogRecord) -> bool:
    # Every library may write to these loggers: the path of the calling file tells Orbax's messages.
    storing = "/orbax/" in record.pathname or "OCDBT database" in record.getMessage()
    return not storing or absl.logging.vlog_is_on(1)
