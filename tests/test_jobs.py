"""Jobs of two processes by the command line: stopped, bereft of a peer, continued elsewhere."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ddgan_jax import checkpoint
from ddgan_jax.errors import UserError
from ddgan_jax.files.locks import only_writer
from ddgan_jax.training.hosts import RUN_AGAIN
from tests.processes import QUICK_COMPILATION

ROOT = Path(__file__).parents[1]
NUM_STEPS = 60
PEER_TIMEOUT = 12  # seconds
SETTINGS = {
    "train.num_steps": NUM_STEPS,
    "train.batch_size": 64,
    "generator.width": 16,
    "discriminator.width": 16,
    "checkpoint.save_every_steps": 20,
    "log.every_steps": 1,
    "log.samples_every_steps": 1_000,
    "log.num_samples": 16,
    "sampling.chunk_size": 16,
}


def command(workdir: Path, **settings) -> list[str]:
    return [
        *(sys.executable, "-m", "ddgan_jax", "train", "--config=configs/mog25.py:siddm_reduced"),
        *(f"--config.{name}={value}" for name, value in (SETTINGS | settings).items()),
        f"--workdir={workdir}",
    ]


def start(workdir: Path, processes: int, devices: int, **settings) -> list[subprocess.Popen]:
    """A job; each process writes into workdir.<process>.log."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    flags = (
        f"--xla_force_host_platform_device_count={devices} {QUICK_COMPILATION}"
        " --xla_cpu_collective_call_warn_stuck_timeout_seconds=120"
        " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    )
    jobs = []
    for i in range(processes):
        peers = [f"--coordinator={address}", f"--num-processes={processes}", f"--process-id={i}"]
        log = log_file(workdir, i).open("w")
        jobs.append(
            subprocess.Popen(
                command(workdir, **settings)
                + (peers + [f"--peer-timeout={PEER_TIMEOUT}"] if processes > 1 else []),
                cwd=ROOT,
                env=os.environ | {"XLA_FLAGS": flags},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
    return jobs


def log_file(workdir: Path, process: int) -> Path:
    return workdir.with_name(f"{workdir.name}.{process}.log")


def wait_for_step(workdir: Path, step: int, jobs: list[subprocess.Popen]) -> None:
    """Until the first process has told of that step."""
    deadline = time.monotonic() + 300
    while f"step {step}/" not in log_file(workdir, 0).read_text():
        assert time.monotonic() < deadline, log_file(workdir, 0).read_text()
        assert jobs[0].poll() is None, log_file(workdir, 0).read_text()
        time.sleep(0.05)


def run(workdir: Path, processes: int, devices: int, **settings) -> None:
    jobs = start(workdir, processes, devices, **settings)
    codes = [job.wait(timeout=600) for job in jobs]
    assert codes == [0] * processes, log_file(workdir, 0).read_text()


def final_arrays(workdir: Path) -> dict[str, list]:
    folder = workdir / "checkpoints" / str(NUM_STEPS)
    content = json.loads((folder / "manifest" / "metadata").read_text())["content"]
    return content["state"] | content["ema"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("jobs") / "undisturbed"
    run(workdir, 2, 2)
    return workdir


def test_stopped_job_goes_on_in_the_same_layout_bit_by_bit(undisturbed, tmp_path):
    """SIGTERM at the second process alone stops both after the same step, with a checkpoint."""
    workdir = tmp_path / "run"
    jobs = start(workdir, 2, 2)
    wait_for_step(workdir, 5, jobs)
    jobs[1].send_signal(signal.SIGTERM)
    assert [job.wait(timeout=120) for job in jobs] == [RUN_AGAIN] * 2
    saved = checkpoint.list_steps(workdir / "checkpoints")
    assert len(saved) == 1
    assert 5 <= saved[0] < NUM_STEPS
    assert f"stopped at step {saved[0]}, checkpoint saved" in log_file(workdir, 0).read_text()
    run(workdir, 2, 2)
    assert final_arrays(workdir) == final_arrays(undisturbed)


def test_job_whose_peer_was_killed_goes_on_as_one_process(undisturbed, tmp_path):
    """kill -9 of a peer ends the other in time, with its name; then one process does it all."""
    workdir = tmp_path / "run"
    jobs = start(workdir, 2, 2)
    wait_for_step(workdir, 25, jobs)
    jobs[1].kill()
    killed = time.monotonic()
    code = jobs[0].wait(timeout=120)
    assert time.monotonic() - killed < 2 * PEER_TIMEOUT
    # Whichever sees it first: the exchange that fails, or JAX's heartbeats, which abort.
    text = log_file(workdir, 0).read_text()
    words = {
        RUN_AGAIN: "process 0 of 2: another process of the job was lost",
        -signal.SIGABRT: "The following tasks are unhealthy (stopped sending heartbeats):\n1\n",
    }
    assert words[code] in text
    assert "Traceback" not in text
    assert checkpoint.list_steps(workdir / "checkpoints") == [20]
    run(workdir, 1, 4)
    ours, theirs = (
        checkpoint.load_ema(w / "checkpoints", report=print)[2] for w in (workdir, undisturbed)
    )
    flat = [np.concatenate([np.ravel(x) for x in _leaves(tree)]) for tree in (ours, theirs)]
    # Sums over devices in another order, through Adam.
    assert np.linalg.norm(flat[0] - flat[1]) <= 1e-4 * np.linalg.norm(flat[1])


def _leaves(tree):
    return [x for v in tree.values() for x in (_leaves(v) if isinstance(v, dict) else [v])]


def test_silent_peer_ends_the_job_in_time(tmp_path):
    """A peer that hangs (SIGSTOP) says nothing any more: missed heartbeats end the other."""
    workdir = tmp_path / "run"
    jobs = start(workdir, 2, 1, **{"train.num_steps": 1_000_000, "log.every_steps": 20})
    try:
        wait_for_step(workdir, 20, jobs)
        jobs[1].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        assert jobs[0].wait(timeout=120) != 0
        assert time.monotonic() - stopped < 2 * PEER_TIMEOUT
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def test_run_folder_has_one_writer(tmp_path):
    """The second is refused while the first lives; the lock goes with it, however it ends."""
    holder = "import sys, time; from ddgan_jax.files.locks import only_writer\n"
    holder += "with only_writer(sys.argv[1]): print('held', flush=True); time.sleep(600)"
    first = subprocess.Popen([sys.executable, "-c", holder, tmp_path], stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match="another process is writing"),
            only_writer(tmp_path),
        ):
            pass
    finally:
        first.kill()
        first.wait()
    with only_writer(tmp_path):
        pass
