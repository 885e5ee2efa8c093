"""Notes how it was called, then does what $STAND_IN says about this process: Python source."""

import json
import os
import signal
import sys
import time
from pathlib import Path

if sys.argv[1] == "check":
    code = int(os.environ.get("CHECK", 0))
    if code:
        print("checked", *sys.argv[2:])
    sys.exit(code)
index = next(a.partition("=")[2] for a in sys.argv if a.startswith("--process-id="))
notes = Path(os.environ["NOTES"])
received: list[int] = []


def note(number: int, frame: object) -> None:
    received.append(number)


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, note)
environment = {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "JAX_PLATFORMS")}
call = {"argv": sys.argv[1:], "environment": environment, "pid": os.getpid()}
(notes / f"{index}.tmp").write_text(json.dumps(call))
(notes / f"{index}.tmp").rename(notes / f"{index}.json")


def until_signal() -> None:
    """Waits for a signal, and a moment longer for one that should not come."""
    while not received:
        time.sleep(0.02)
    time.sleep(0.3)


exec(os.environ["STAND_IN"], {**globals(), "index": int(index)})
