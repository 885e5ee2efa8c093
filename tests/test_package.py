"""What an installation holds: every file of the package, those behind its links too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.quick


def files(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """The content of each file, links followed, and whether it may be executed."""
    found = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for path in (Path(place) / name for name in names):
            key = path.relative_to(folder).as_posix()
            found[key] = (path.read_bytes(), os.access(path, os.X_OK))
    return found


def test_an_installation_has_every_file(tmp_path):
    """Data that setup.cfg forgets would be missing only for those who install."""
    pytest.importorskip("setuptools")
    build = ("egg_info", f"--egg-base={tmp_path}", "build_py", f"--build-lib={tmp_path}/lib")
    program = "import setuptools; setuptools.setup()"
    subprocess.run(
        [sys.executable, "-c", program, "-q", *build], cwd=ROOT, check=True, capture_output=True
    )
    installed = files(tmp_path / "lib" / "ddgan_jax")
    assert installed.keys() == files(ROOT / "ddgan_jax").keys()
    assert installed == files(ROOT / "ddgan_jax")
    assert {"configs/digits_ddgan.py", "launch/slurm.sh"} <= installed.keys()
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
