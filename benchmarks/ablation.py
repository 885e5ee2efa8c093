"""Measure which terms of SIDDM matter: the same networks, with one switch changed in each row.

    python -m benchmarks.ablation --config=configs/digits_siddm.py --steps=1000 --out=results

Writes a row per variant to OUT/ablation.json and a table to stdout. The numbers compare 2,000
samples with the 1,797 real digits: the share that a support vector machine, trained on the real
digits, finds in the class that was asked for; the Frechet distance, precision and recall of the 64
pixels themselves (no FID: no Inception network is involved).
"""

import functools
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
from sklearn.svm import SVC

from benchmarks import command
from benchmarks.command import CONFIG_FLAGS
from ddgan_jax import build, data, distributed, metrics, randomness
from ddgan_jax.cli.arguments import Flag, parse_config, parse_flags
from ddgan_jax.config.checks import validate
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.inference import drawing

_C = {"objective.afd_regression": True}
_WITHOUT_AFD = {"objective.afd_weight": 0.0}
_WITHOUT_R = {"objective.denoising_weight": 0.0}
_KL = {"objective.afd_form": "kl"}
# DDGAN judges pairs, and has no AFD.
_PAIRS = {"objective.joint": True} | _WITHOUT_AFD
ROWS = {
    "recon, C, R": _C,
    "kl, C, R": _C | _KL,
    "kl, C, R, likelihood weight": _C | _KL | {"objective.afd_scaling": "likelihood"},
    "code, R": {"objective.afd_form": "code"},
    "SIDDM: recon, R": {},
    "recon": _WITHOUT_R,
    "R, without AFD": _WITHOUT_AFD,
    "recon alone, R": {"objective.adversarial_weight": 0.0},
    "recon, R, D told s": {"objective.discriminator_time": "t"},
    "DDGAN, this D": _PAIRS | _WITHOUT_R,
    "DDGAN, this D, R": _PAIRS,
}
NUM_SAMPLES = 2_000
FLAGS = (
    *CONFIG_FLAGS,
    Flag("steps", "N", "train steps of each row", 1_000, "integer"),
    Flag("rows", "LIST", "numbers of rows, e.g. 0,4; without it all", ""),
    Flag("out", "FOLDER", "where ablation.json goes", "results"),
)


def train(config):
    """Return the EMA parameters after train.num_steps on one device, and the seconds it took."""
    devices = jax.devices()[:1]
    key = randomness.run_key(config.train.seed)
    state = distributed.create_replicated(
        functools.partial(build.initial_state, config, key), devices
    )
    # Steps with and without the R1 penalty are two programs, as in the training loop.
    programs = {
        r1: distributed.map_step(build.step(config, r1=r1), config.train.mapping, devices)
        for r1 in (True, False)
    }
    stream = data.batches(
        data.open_dataset(config),
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=0,
    )
    start = time.monotonic()
    for step in range(config.train.num_steps):
        batch = distributed.place_batch(next(stream), config.train.mapping, devices)
        state, _ = programs[build.r1_is_due(config, step)](state, batch, key)
    # JAX returns before the device has finished.
    jax.block_until_ready(state)
    stream.close()
    return state.generator.ema_params, time.monotonic() - start


def measure(config, params) -> dict[str, float]:
    """Return the numbers of a row; see the module's docstring."""
    real, labels = data.open_dataset(config).read(np.arange(1_797))
    request = drawing.each_class(config.data.num_classes, range(NUM_SAMPLES))
    draw = drawing.make_drawer(build.sampler(config), jax.devices()[:1], config.sampling.chunk_size)
    drawn = drawing.draw_all(draw, params, request)
    a, b = (x.reshape(len(x), -1) / 255.0 for x in (real, drawn))
    # The classifier is trained on real digits alone, so that it knows nothing of the generator.
    found = SVC(gamma=0.05).fit(a, labels).predict(b)
    precision, recall = metrics.precision_recall(a, b)
    return {
        "class_right": float((found == np.array(request.labels)).mean()),
        "frechet_of_pixels": metrics.frechet_distance(a, b),
        "precision": precision,
        "recall": recall,
    }


def main() -> int:
    """Train and measure the rows, one after the other."""
    values, overrides = parse_flags("python -m benchmarks.ablation", FLAGS, sys.argv[1:])
    out = Path(values.out) / "ablation.json"
    rows = json.loads(out.read_text()) if out.exists() else []
    chosen = [int(n) for n in values.rows.split(",")] if values.rows else range(len(ROWS))
    for number in chosen:
        name = list(ROWS)[number]
        # A fresh config for each row, since the switches of a row change it in place.
        config = parse_config(values.config, overrides)
        config.update_from_flattened_dict(ROWS[name])
        config.train.num_steps = values.steps
        validate(config, 1)
        params, seconds = train(config)
        row = {"row": name, "steps": values.steps, "seconds": seconds} | measure(config, params)
        # The file is written after each row, so that an interrupted run loses one row at most.
        rows = [r for r in rows if r["row"] != name] + [row]
        write_atomically(out, json.dumps(rows, indent=1).encode())
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(command.exit_code("ablation", main))
