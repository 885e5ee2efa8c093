"""A training run of WaveDiff's code that was never run, for tests of what its file holds."""

import argparse
from collections import OrderedDict
from typing import Any

import numpy as np

from tests import golden_cases as golden
from tests.golden import rule_fill

# Whose networks the run has.
CASE = golden.load("wavediff/wt01_train_pw_rec_lazy2")
GENERATOR = golden.FOLDER / "wavediff" / "wnetG_tiny.pth"
# The options of that file, as a command line gives them.
GENERATOR_OPTIONS = {
    **golden.PROGRAMS["wavediff"].base,
    **golden.load("wavediff/wnetG_tiny").meta["config"],
    "use_ema": True,
    "use_pytorch_wavelet": False,
}
OPTIONS = {
    **CASE.program.base,
    **CASE.meta["config"],
    "num_channels": 12,
    "dataset": "stl10",
    "batch_size": 4,
    "num_process_per_node": 2,
    "num_epoch": 1,
    "r1_gamma": 0.02,
    "lazy_reg": 1,
    "use_ema": True,
    "ema_decay": 0.9,
    "rec_loss": True,
    # The official loop saves the options after it has overwritten the size of the images.
    "image_size": CASE.program.base["current_resolution"],
    "ori_image_size": CASE.program.base["image_size"],
    # Options of scripts that decide nothing here.
    "exp": "x",
    "datadir": "./data",
    "save_content": True,
}
del OPTIONS["discriminator"]


def made_up_content(steps: int = 2) -> dict[str, Any]:
    """A content.pth after one epoch of so many steps, in which every array has other numbers."""
    content: dict[str, Any] = {
        "epoch": 1,
        "global_step": steps,
        "args": argparse.Namespace(**OPTIONS),
    }
    for letter, network in (("G", "generator"), ("D", "discriminator")):
        shapes = {name: tuple(s) for name, s in CASE.program.shapes[CASE.name][network].items()}
        parts = ("exp_avg", "exp_avg_sq", *(("ema",) if letter == "G" else ()))
        content[f"net{letter}_dict"] = OrderedDict(
            (f"module.{name}", _array("raw", name, shape)) for name, shape in shapes.items()
        )
        content[f"optimizer{letter}"] = {
            "state": {
                i: {"step": steps} | {part: _array(part, name, shapes[name]) for part in parts}
                for i, name in enumerate(shapes)
            },
            "param_groups": [{"lr": 1e-4, "params": list(range(len(shapes)))}],
        }
        content[f"scheduler{letter}"] = {"T_max": 1, "eta_min": 1e-5, "last_epoch": 1}
    return content


def _array(part: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    seed = ("raw", "ema", "exp_avg", "exp_avg_sq").index(part)
    values = rule_fill.weight(seed, name, shape).astype(np.float32)
    # Moments as of gradients that are small: no second one is near zero.
    scaled = {"exp_avg": 1e-3 * values, "exp_avg_sq": 1e-6 * (1 + values**2)}
    return scaled.get(part, values)
