"""An installation for drawing alone: what it is without, and what says so."""

import configparser
import os
import re
import subprocess
import sys
from importlib import metadata

from ddgan_jax import errors
from tests.methods import ROOT


def requirements(text):
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[^\w.-]", line)[0]: line for line in lines if line}


def test_requirements_for_drawing_are_those_of_the_whole():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    whole = requirements(config["options"]["install_requires"])
    text = (ROOT / "requirements-sample.txt").read_text()
    drawing_alone = requirements(text)
    shared = whole.keys() & drawing_alone.keys()
    assert {name: drawing_alone[name] for name in shared} == {name: whole[name] for name in shared}
    # The rest of the whole is what errors name, and Flax, whose own needs are the rest here.
    modules = {name.replace("-", "_") for name in whole.keys() - shared - {"flax"}}
    missing = {"orbax" if "orbax" in name else name for name in modules}
    assert missing <= set(errors.NOT_FOR_SAMPLING)
    assert whole["flax"] in text
    of_flax = {re.split(r"[^\w.-]", line)[0] for line in metadata.requires("flax")}
    assert drawing_alone.keys() - shared <= of_flax


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import ddgan_jax
from ddgan_jax import cli
assert cli.main(["train", "--config=digits_ddgan:tiny", "--workdir=x"]) == 2
assert cli.main(["sample", "--export=digits", "--num=2", "--out=two.npy"]) == 0
import numpy as np
np.testing.assert_array_equal(np.load("two.npy"), ddgan_jax.load("digits").sample(2))
assert cli.main(["sample", "--workdir=."]) == 2
assert cli.main(["sample", "--export=digits", "--num=1", "--out=x.array_record"]) == 2
"""


def test_drawing_needs_none_of_the_packages_for_training(tmp_path):
    """In a process that has not got them; commands that need one say so in a line."""
    program = WITHOUT.format(names=set(errors.NOT_FOR_SAMPLING) | {"treescope"})
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "whole install" in line]
    assert [line.split(" needs")[0] for line in lines] == [
        "ddgan train: this command",
        "ddgan sample: a run folder",
        "ddgan sample: an .array_record",
    ]
    assert "Traceback" not in result.stderr
