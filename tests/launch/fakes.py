"""Launchers driven with stand-ins for the commands of a cluster."""

import importlib.util
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
LAUNCH = REPOSITORY / "launch"
SCRIPTS = Path(__file__).parent
CHECK = "ddgan check "

# What a shell, ssh, YAML, Kubernetes and Python might each want to change.
ODD = ["$HOME $(id) `id`", "$$ $(X)", 'it\'s "odd"', "two  spaces ", "a\\b\nc", "é;&|<*>?[!]{,}~#%"]


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Returns as soon as the condition holds; an error if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def load(name: str) -> ModuleType:
    """A launcher written in Python, as a module; each one's `main` takes arguments."""
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Ended(NamedTuple):
    """A launcher's exit code and what it printed."""

    code: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


class Fakes:
    """Stand-ins in a folder that comes first on PATH, and what was asked of them."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in names:
            (folder / "bin" / name).symlink_to(SCRIPTS / "record.sh")
        self.environment = {
            **{name: value for name, value in os.environ.items() if "CLOUDSDK" not in name},
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "FAKES": str(folder),
            "TMPDIR": str(folder),
        }

    def behave(self, name: str, script: str) -> None:
        """Lets the stand-in do `script`, bash source, after it has noted its call."""
        (self.folder / f"{name}.sh").write_text(script)

    def run(self, *argv: str | Path, cwd: Path | None = None, **variables: str) -> Ended:
        """Runs a launcher to its end."""
        ended = subprocess.run(
            argv,
            cwd=cwd or self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def calls(self, *names: str) -> list[str]:
        """What was called so far, as dry runs print it; only these commands, if any are named."""
        lines = [line for line in self._lines() if not line.startswith(CHECK)]
        return [line for line in lines if not names or shlex.split(line)[0] in names]

    def checks(self) -> list[str]:
        """The arguments with which `ddgan check` was called so far."""
        return [line.removeprefix(CHECK) for line in self._lines() if line.startswith(CHECK)]

    def _lines(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []
