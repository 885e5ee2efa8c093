"""The same numbers on any layout of devices and processes, by real processes over loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddgan_jax import hosts
from ddgan_jax.errors import UserError
from tests.processes import QUICK_COMPILATION

ROOT = Path(__file__).parents[1]
# Dense networks compile in seconds; tests.layout_program does the same for any config.
CONFIG = "configs/mog25.py:siddm_reduced"
CHANGES = ("train.batch_size=64", "generator.width=16", "discriminator.width=16")
REFERENCE = (1, 1)
LAYOUTS = [
    ((1, 8), ("train.mapping=pmap",)),
    ((2, 2), ("train.mapping=shard_map", "train.shard_optimizer=True")),
    ((4, 1), ("train.mapping=pmap",)),
]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(out: Path, layout: tuple[int, int], *changes: str) -> list[subprocess.Popen]:
    """The processes of a job of `layout` = (processes, devices of each)."""
    processes, devices = layout
    flags = (
        f"--xla_force_host_platform_device_count={devices} {QUICK_COMPILATION}"
        " --xla_cpu_collective_call_warn_stuck_timeout_seconds=120"
        " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    )
    command = [sys.executable, "-m", "tests.layout_program", str(out), CONFIG, *CHANGES, *changes]
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            command + (["--", address, str(processes), str(i)] if processes > 1 else []),
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]


def results(out: Path, layout: tuple[int, int], *changes: str) -> dict[str, np.ndarray]:
    jobs = start(out, layout, *changes)
    outputs = [job.communicate(timeout=600)[0] for job in jobs]
    for job, output in zip(jobs, outputs, strict=True):
        assert job.returncode == 0, output
    with np.load(out) as file:
        return dict(file)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return results(tmp_path_factory.mktemp("layouts") / "reference.npz", REFERENCE)


@pytest.mark.parametrize(("layout", "changes"), LAYOUTS)
def test_layouts_agree(layout, changes, reference, tmp_path):
    """Gradients to rounding, parameters along 20 steps, images bit by bit."""
    ours = results(tmp_path / "out.npz", layout, *changes)
    assert ours.keys() == reference.keys()
    np.testing.assert_array_equal(ours["images"], reference["images"])
    # Sums over the batch in another order: rounding of 1e-6, of which the discriminator has more,
    # since the gradients of its real and generated halves nearly cancel.
    assert relative_distance(ours, reference, "gradient['generator']") <= 1e-6
    assert relative_distance(ours, reference, "gradient['discriminator']") <= 4e-6
    # Adam divides by the gradient: where that nearly vanishes rounding decides its sign.
    assert relative_distance(ours, reference, "params") <= 1e-4


def relative_distance(ours, reference, prefix):
    names = [name for name in reference if name.startswith(prefix)]
    assert names
    a, b = (np.concatenate([r[n].ravel() for n in names]).astype(float) for r in (ours, reference))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", None, None), "belong together"),
        ((None, 2, None), "belong together"),
        (("host:1", 2, 2), "--process_id=2 must lie between 0 and 1"),
        (("host", 2, 0), "--coordinator=host is not HOST:PORT"),
    ],
)
def test_incomplete_flags_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        hosts.join(*arguments)
