"""Render docs/scaling.md: what many devices would make of each shipped config.

    python -m benchmarks.scaling --results=docs/results --out=docs/scaling.md

Reads `shapes.json` (benchmarks.shapes) and `devices.json` (benchmarks.devices) from the folder of
results, and the figures that makers publish from `benchmarks.chips`. All rates are per second, all
times in seconds.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.chips import CHIPS, Chip
from ddgan_jax.cli.arguments import Flag, parse_flags
from ddgan_jax.errors import UserError
from ddgan_jax.files.atomic import write_atomically

FLAGS = (
    Flag("results", "FOLDER", "where shapes.json and devices.json lie", "docs/results"),
    Flag("out", "FILE", "Markdown file to write", "docs/scaling.md"),
)

SHARE_OF_PEAK = 0.4
SHARE_OF_MEMORY = 0.9
COUNTS = (8, 64, 256, 1_024)
MEMORY_GB = (16, 32, 80, 96)
# Devices that a config's batch is meant for: those of the papers where they are stated (the config
# files say which), else our own choice.
DEVICES = {
    "celebahq1024_wavediff": 8,
    "celebahq256_ddgan": 8,
    "celebahq256_siddm": 16,
    "celebahq256_wavediff": 2,
    "celebahq512_wavediff": 8,
    "cifar10_ddgan": 4,
    "cifar10_siddm": 8,
    "cifar10_wavediff": 1,
    "digits_ddgan": 1,
    "digits_siddm": 1,
    "digits_wavediff": 1,
    "folder_ddgan": 1,
    "imagenet64_siddm": 64,
    "lsun_church256_ddgan": 8,
    "lsun_church256_wavediff": 4,
    "mnist_ddgan": 1,
    "mog25": 1,
    "stacked_digits_ddgan": 1,
    "stacked_digits_siddm": 1,
    "stacked_mnist_ddgan": 4,
    "stl10_ddgan": 1,
    "stl10_wavediff": 1,
}

Shapes = dict[str, dict[str, Any]]


# ---------------------------------------------------------------------------------------- model


def all_reduce_seconds(size: float, count: int, chip: Chip) -> float | None:
    """Return the time to average `size` bytes over `count` chips; None without a published figure.

    A ring passes 2 (n - 1) / n of the bytes through every chip. Beyond a group of chips: half a
    ring in each group leaves every chip with its share of the sum, the same chips of all groups
    reduce their shares over the network, and the other half spreads them.
    """
    inside = min(count, chip.group)
    seconds = _ring_bytes(size, inside) / chip.link_bytes_per_second
    groups = -(-count // chip.group)
    if groups == 1:
        return seconds
    if chip.network_bytes_per_second is None:
        return None
    return seconds + _ring_bytes(size / inside, groups) / chip.network_bytes_per_second


def _ring_bytes(size: float, count: int) -> float:
    return 2 * (count - 1) / count * size


def efficiency(compute: float, communication: float) -> tuple[float, float]:
    """Return the share of time spent computing if nothing overlaps, and if all that can does."""
    return compute / (compute + communication), min(1.0, compute / max(communication, 1e-30))


def compute_seconds(facts: dict[str, Any], images: float, chip: Chip) -> float:
    """Return the time of a step on `images` images of a device, at the assumed share of peak."""
    flops = images * facts["flops_per_image_and_step"]["mean"]
    return flops / (SHARE_OF_PEAK * chip.flops_per_second)


def images_at_once(facts: dict[str, Any], activation_bytes: int, memory_bytes: float) -> int:
    """Return how many images' activations fit beside the state and the larger gradients."""
    left = SHARE_OF_MEMORY * memory_bytes - facts["state_bytes"]
    left -= max(facts["parameter_bytes"].values())
    return max(0, int(left // activation_bytes))


def microbatches(images: int, at_once: int) -> int | None:
    """Return the smallest train.microbatches that makes parts of at most `at_once` images."""
    return next(
        (k for k in range(1, images + 1) if images % k == 0 and images // k <= at_once), None
    )


# ------------------------------------------------------------------------------------ rendering


def render(shapes: Shapes, devices: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    return (
        "\n\n".join(
            [
                _INTRODUCTION,
                "## What a step computes and moves",
                _steps_table(shapes),
                "## Expected efficiency",
                _MODEL.format(share=SHARE_OF_PEAK),
                _chips_table(),
                *(
                    part
                    for chip in CHIPS
                    for part in (f"### {chip.name}", _chip_table(shapes, chip))
                ),
                "Sources of the published figures:",
                "\n".join(f"- {chip.name}: {'; '.join(chip.sources)}" for chip in CHIPS),
                "## Memory of a device",
                _MEMORY.format(share=SHARE_OF_MEMORY),
                _memory_table(shapes),
                "## Measured: devices that share a CPU",
                _devices_text(devices),
                _devices_table(devices),
            ]
        )
        + "\n"
    )


_INTRODUCTION = """\
# Scaling

Written by `python -m benchmarks.scaling`; every number comes from the shapes of the shipped configs
(`docs/results/shapes.json`), from published figures (`benchmarks/chips.py`) or from a measurement
(`docs/results/devices.json`). No cluster was used: the efficiencies are expectations."""

_MODEL = """\
A step averages the gradients of the discriminator, updates it, averages the gradients of the
generator, and updates that: two all-reduces of float32 numbers, beside which the metrics are
nothing. A replicated state is not communicated. With `train.shard_optimizer` every chip gathers the
new parameters too, half an all-reduce more unless the compiler reduces to parts in the first place;
the tables leave that out.

- Time of an all-reduce of B bytes over n chips: that of a ring, 2 (n - 1) / n x B / bandwidth.
  Where n chips are more than one group (a node of GPUs, a pod of TPUs), the groups reduce inside
  first, then each chip its share over the network. Latency is left out: networks of a megabyte,
  such as those of the digits, would see little else.
- Time of the computation: FLOPs of the step, R1 in its share of the steps, at {share:.0%} of the
  peak for dense bfloat16 products (`train.compute_dtype = "bfloat16"`). That share is an
  assumption.
- Efficiency = time of computation / time of the step. Lower number: nothing overlaps. Higher
  number: the two overlap wholly. A run lies between; the discriminator's all-reduce cannot hide
  behind the generator's step, which needs its result, only behind its own backward pass."""

_MEMORY = """\
State: parameters, their average and Adam's two moments, plus the gradients of the larger network.
Activations: what the backward pass keeps for one image, before the compiler fuses or drops any of
it, an upper estimate (`ddgan show` prints the same). Of a device's memory {share:.0%} count. Each
cell: images that fit at once, and the `train.microbatches` that makes the batch of a device fit
(none needed: 1). Rematerialisation is `remat_resolutions` of both U-Nets; NCSN++ has none.
All is for float32; bfloat16 needs less for activations and the same for the state. The state is
taken as replicated: `train.shard_optimizer` divides about two thirds of it among the devices."""


def _steps_table(shapes: Shapes) -> str:
    rows = []
    for name, facts in shapes.items():
        flops = facts["flops_per_image_and_step"]
        r1 = f"{flops['with_r1'] / 1e9:,.4g}" if "with_r1" in flops else "-"
        rows.append(
            [
                name,
                *(f"{count / 1e6:,.2f} M" for count in facts["parameters"].values()),
                f"{facts['reduced_bytes_per_step'] / 1e6:,.1f}",
                f"{flops['without_r1'] / 1e9:,.4g}",
                r1,
                f"{facts['batch_size']:,}",
                f"{DEVICES[name]}",
            ]
        )
    head = ["config", "generator", "discriminator", "MB reduced per step", "GFLOP per image"]
    return markdown_table([*head, "with R1", "batch", "devices"], rows)


def _chips_table() -> str:
    rows = [
        [
            chip.name,
            f"{chip.flops_per_second / 1e12:,.0f}",
            f"{chip.memory_bytes / 1e9:.0f}",
            f"{chip.link_bytes_per_second / 1e9:,.0f}",
            f"{chip.group:,}",
            f"{chip.network_bytes_per_second / 1e9:.3g}" if chip.network_bytes_per_second else "-",
        ]
        for chip in CHIPS
    ]
    head = ["chip", "bf16 TFLOP/s", "memory, GB", "links, GB/s one way", "chips in a group"]
    return markdown_table([*head, "network, GB/s per chip"], rows)


def _chip_table(shapes: Shapes, chip: Chip) -> str:
    rows = []
    for name, facts in shapes.items():
        images = facts["batch_size"] // DEVICES[name]
        compute = compute_seconds(facts, images, chip)
        weak = [_percent(facts, images, count, chip) for count in COUNTS]
        strong = [_percent(facts, facts["batch_size"] / count, count, chip) for count in COUNTS]
        rows.append([name, f"{images:,}", f"{1e3 * compute:,.3g}", *weak, *strong])
    head = ["config", "images per chip", "ms of computation", *(f"{n} chips" for n in COUNTS)]
    title = "Left: so many images on every chip. Right: the config's own batch divided among all."
    table = markdown_table([*head, *(f"batch / {n}" for n in COUNTS)], rows)
    return f"{title} In per cent.\n\n{table}"


def _percent(facts: dict[str, Any], images: float, count: int, chip: Chip) -> str:
    seconds = all_reduce_seconds(facts["reduced_bytes_per_step"], count, chip)
    if seconds is None or images != int(images):
        return "-"
    low, high = efficiency(compute_seconds(facts, images, chip), seconds)
    low, high = f"{100 * low:.0f}", f"{100 * high:.0f}"
    return low if low == high else f"{low} - {high}"


def _memory_table(shapes: Shapes) -> str:
    rows = []
    for name, facts in shapes.items():
        images = facts["batch_size"] // DEVICES[name]
        gradients = max(facts["parameter_bytes"].values())
        state = f"{(facts['state_bytes'] + gradients) / 1e9:.2f}"
        for remat, size in facts["activation_bytes_per_image"].items():
            if not size:  # the estimate is too coarse for two small MLPs, which fit anywhere
                continue
            cells = [_fit(facts, size, images, memory * 1e9) for memory in MEMORY_GB]
            label = f"{size / 1e6:,.4g}"
            rows.append([name, remat or "-", state, label, f"{images:,}", *cells])
    head = ["config", "remat", "state and gradients, GB", "activations, MB per image"]
    sizes = [f"{memory} GB" for memory in MEMORY_GB]
    return markdown_table([*head, "images per device", *sizes], rows)


def _fit(facts: dict[str, Any], activation_bytes: int, images: int, memory: float) -> str:
    at_once = images_at_once(facts, activation_bytes, memory)
    parts = microbatches(images, at_once)
    return f"{at_once:,}; {parts}" if parts else "does not fit"


def _devices_text(devices: dict[str, Any]) -> str:
    machine = devices["machine"]
    return (
        f"`{devices['config']}`, batch {devices['batch_size']}, on {machine['cores']} cores "
        f"({machine['processor']}), {devices['date'][:10]}, JAX {devices['versions']['jax']}: the\n"
        "same batch on more and more devices that share the cores. Nothing can become faster;\n"
        "what becomes slower is the cost of dividing a step and of meeting for gradients.\n\n"
        f"    {devices['command']}"
    )


def _devices_table(devices: dict[str, Any]) -> str:
    first = devices["devices"]["1"]
    rows = [
        [
            count,
            f"{run['steps_per_second']:.3g}",
            f"{1e3 * run['cpu_seconds_per_step']:.3g}",
            f"{run['cpu_seconds_per_step'] / first['cpu_seconds_per_step']:.2f}",
        ]
        for count, run in devices["devices"].items()
    ]
    return markdown_table(["devices", "steps/s", "CPU ms per step", "CPU time, relative"], rows)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of text, with the first column to the left and the others to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Write the page."""
    values, _ = parse_flags("python -m benchmarks.scaling", FLAGS, sys.argv[1:])
    results = Path(values.results)
    try:
        shapes, devices = (
            json.loads((results / f"{name}.json").read_text()) for name in ("shapes", "devices")
        )
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; see {Path(__file__).name}") from error
    write_atomically(values.out, render(shapes, devices).encode())
    return 0


if __name__ == "__main__":
    sys.exit(command.exit_code("scaling", main))
