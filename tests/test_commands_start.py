"""Every command starts and ends well on tiny inputs: with whatever versions are installed.

The first command runs in a process of its own: what ends a process at once, such as a flag that
this XLA does not know, is seen there.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ddgan_jax import cli
from ddgan_jax.cli.commands import COMMANDS
from tests import golden_cases, made_up_results, test_inception, wavediff_checkpoints
from tests.methods import ROOT, SMALLEST, config_file
from tests.processes import QUICK_COMPILATION

pytestmark = pytest.mark.quick

CONFIG = [
    f"--config={ROOT}/{config_file('ddgan')}",
    *(f"--config.{field}={value}" for field, value in SMALLEST["ddgan"].items()),
    "--config.diffusion.num_timesteps=1",
]
# In the order in which they are run; each may read what those before it wrote. "{}": the folder.
ARGUMENTS = {
    "train": [*CONFIG, "--workdir={}/run"],
    "show": CONFIG,
    "configs": [],
    "check": [*CONFIG, "--devices=1", "--memory-gib=64"],
    "launch": [],
    "completion": ["bash"],
    "sample": ["--workdir={}/run", "--seeds=0-3", "--out={}/grid.png"],
    "export": ["--workdir={}/run", "--out={}/export", "--seeds=0-3"],
    "prepare": ["--dataset=mine", "--arrays={}/images.npy", "--data_dir={}/data"],
    "evaluate": [
        *(
            "--workdir={}/run",
            "--features=pixels",
            "--num=128",
            "--allow-small",
            "--metrics=frechet",
        ),
        "--reference={}/reference.npz",
    ],
    "experiment claims": ["--out={}/claims", "--tables=digits_siddm", "--rows=code", "--seeds=0"],
    "experiment mog25": ["--out={}/mog25", "--methods=siddm", "--iterations=1"],
    "figure denoising": ["--workdir={}/run", "--draws=2", "--out={}/denoising.png"],
    "figure edit": ["--input={}/image.png", "--export={}/export", "--seeds=0", "--out={}/edit.png"],
    "figure neighbours": ["--workdir={}/run", "--seeds=0", "--out={}/neighbours.png"],
    "figure tradeoff": [
        *("--results={}/run/evaluations", "--metric=frechet_pixels_128", "--out={}/tradeoff.svg"),
    ],
    "figure trajectory": ["--workdir={}/run", "--seeds=0", "--out={}/trajectory.png"],
    "import inception": ["--from={}/state_dict.npz", "--out={}/inception.npz"],
    "import nvlabs": [
        *(f"--checkpoint={golden_cases.FOLDER}/netG_tiny.pth", "--args={}/args.json"),
        "--out={}/imported",
    ],
    "import wavediff": [
        *(f"--checkpoint={wavediff_checkpoints.GENERATOR}", "--args={}/wavediff.json"),
        "--out={}/imported_wavediff",
    ],
    "reference": ["--dataset=digits", "--features=pixels", "--out={}/reference.npz"],
    "report": ["--workdir={}/run", "--out={}/report.html"],
}
ORDER = ["train", "reference", "evaluate", *ARGUMENTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    np.save(folder / "images.npy", images)
    Image.fromarray(images[0]).save(folder / "image.png")
    # A row takes minutes: the result is there, and the command finds it.
    made_up_results.write_row(folder, "digits_siddm", "code", 0, {4: {"class_right": 0.9}})
    (folder / "args.json").write_text(json.dumps(golden_cases.load("netG_tiny").meta["config"]))
    (folder / "wavediff.json").write_text(json.dumps(wavediff_checkpoints.GENERATOR_OPTIONS))
    return folder


def test_every_command_is_tried():
    assert ARGUMENTS.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", dict.fromkeys(ORDER))
def test_command_starts(folder, command):
    argv = [*command.split(), *(argument.format(folder) for argument in ARGUMENTS[command])]
    if command == "import inception":
        zeros = {name: np.zeros(shape, np.float32) for name, shape in test_inception.SHAPES.items()}
        np.savez_compressed(folder / "state_dict.npz", **zeros)
    if command == "train":
        env = os.environ | {"XLA_FLAGS": QUICK_COMPILATION}
        program = [sys.executable, "-m", "ddgan_jax", *argv]
        subprocess.run(program, env=env, check=True, timeout=600)
    else:
        assert cli.main(argv) == 0
