"""What Orbax says of its own accord, kept from the user's terminal.

It logs its progress, and every failure several times, with traceback, from threads of its own. Each
failure also reaches the caller of a save or a restore as one line, which is the one to read.
"""

import logging
import sys
from typing import Any

import absl.logging  # first, for it makes the logger "absl" one that knows its callers

_installed = False


def keep_back() -> None:
    """Silence Orbax from now on, but for `--verbosity` of absl above 0.

    It changes the whole process: it is for programs alone.
    """
    global _installed
    if _installed:
        return
    _installed = True
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_concerns_others)
    usual = sys.unraisablehook

    def pass_on(unraisable: Any) -> None:
        # When one array cannot be read or written, Orbax closes the event loop to which the others
        # still report, until the process ends: hundreds of tracebacks about one full disk.
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = pass_on


def _concerns_others(record: logging.LogRecord) -> bool:
    storing = "/orbax/" in record.pathname or "OCDBT database" in record.getMessage()
    return not storing or absl.logging.vlog_is_on(1)
