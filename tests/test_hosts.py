"""The same numbers on any layout of devices and processes, by real processes over loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.training import clusters, hosts
from ddgan_jax.training.clusters import Job
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


# ---- what cannot be a job


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", None, None), "belong together"),
        ((None, 2, None), "belong together"),
        ((None, None, 0), "belong together"),
        (("host:1", 2, 2), "`process_id=2` must lie between 0 and 1"),
        (("host:1", 2, -1), "`process_id=-1` must lie"),
        (("host:1", 0, 0), "`num_processes=0` must lie between 1 and 65536"),
        (("host:1", -1, 0), "`num_processes=-1` must lie"),
        (("host:1", 10**12, 0), "`num_processes=1000000000000` must lie"),
        (("host", 2, 0), "`coordinator=host` is not HOST:PORT"),
        (("", 2, 0), "`coordinator=` is not HOST:PORT"),
        ((":1234", 2, 0), "`coordinator=:1234` is not HOST:PORT"),
        (("a b:1234", 2, 0), "`coordinator=a b:1234` is not HOST:PORT"),
        (("http://host:1234", 2, 0), "is not HOST:PORT"),
        (("::1:1234", 2, 0), r"an IPv6 address stands in brackets, \[::1\]:1234"),
        (("host:", 2, 0), "the port must lie between 1 and 65535"),
        (("host:0", 2, 0), "the port must lie"),
        (("host:65536", 2, 0), "the port must lie"),
        (("host:-1", 2, 0), "the port must lie"),
        (("host:\u0661\u0662", 2, 0), "the port must lie"),
    ],
)
def test_arguments_without_sense_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        hosts.join(*arguments)


@pytest.mark.parametrize("address", ["[::1]:1234", "10.0.0.1:1", "node-1.cluster:65535"])
def test_addresses(address):
    clusters.check_address(address)


# ---- what Slurm and Open MPI say

STEP = {  # of task 5, the second of the second node
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[003-004,7],other",
    "SLURM_STEP_NUM_TASKS": "14",
    "SLURM_STEP_TASKS_PER_NODE": "4(x3),2",
    "SLURM_NTASKS": "14",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
RANK = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, None),
        # A shell or a batch script in an allocation: nobody started the other tasks.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),
        # The shell of `salloc` as a step of its own, and srun with one task: alone, on all GPUs.
        (STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, Job()),
        (STEP, Job(14, 5, "node003:61441", [1])),
        (STEP | EIGHT, Job(14, 5, "node003:61441", [2, 3])),
        (STEP | {"SLURM_NODEID": "3"} | EIGHT, Job(14, 5, "node003:61441", [4, 5, 6, 7])),
        (STEP | {"CUDA_VISIBLE_DEVICES": "3"}, Job(14, 5, "node003:61441", None)),
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5"}, Job(14, 5, "node003:61441", [1])),
        (
            STEP | EIGHT | {"SLURM_STEP_TASKS_PER_NODE": "1(x14)", "SLURM_LOCALID": "0"},
            Job(14, 5, "node003:61441", None),
        ),
        (STEP | {"SLURM_STEP_NODELIST": "a-1,b[2-3]"}, Job(14, 5, "a-1:61441", [1])),
        (STEP | {"SLURM_STEP_NODELIST": "r[1-2]n[05,7]"}, Job(14, 5, "r1n05:61441", [1])),
        (STEP | {"JAX_COORDINATOR_PORT": "99"}, Job(14, 5, "node003:99", [1])),
        (STEP | {"JAX_COORDINATOR_ADDRESS": "x:98"}, Job(14, 5, "x:98", [1])),
        (RANK, Job(4, 3, "10.96.0.1:62624", [1])),
        (RANK | EIGHT, Job(4, 3, "10.96.0.1:62624", [4, 5, 6, 7])),
        (RANK | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, Job(4, 3, "10.96.0.1:62624", None)),
        (RANK | {"OMPI_COMM_WORLD_SIZE": "1"}, Job()),
        (
            RANK | {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp6://[fe80::1,fe80::2]:43370"},
            Job(4, 3, "[fe80::1]:61441", [1]),
        ),
        (STEP | RANK, Job(4, 3, "10.96.0.1:62624", [1])),  # mpirun within Slurm
    ],
)
def test_jobs_of_clusters(environment, job):
    assert clusters.find_job(environment) == job


@settings(deadline=None)
@given(
    st.sampled_from([STEP, RANK]),
    st.dictionaries(
        st.sampled_from(sorted({*STEP, *RANK, *EIGHT, "JAX_COORDINATOR_PORT"})),
        st.none()
        | st.text("0149a[](),-x:é\n ", max_size=9)
        | st.sampled_from(["-1", "0", "3", "9" * 40, "n[", "[1]"]),
    ),
)
def test_any_variables_are_a_job_or_one_line(environment, changes):
    changed = {k: v for k, v in (environment | changes).items() if v is not None}
    try:
        job = clusters.find_job(changed)
    except UserError as error:
        assert str(error).isprintable()
        return
    if job and job.num_processes > 1:
        assert 0 <= job.process_id < job.num_processes
        clusters.check_address(job.coordinator)


# ---- waiting, by a program of its own

JOIN = """
import sys
from ddgan_jax.training import hosts
from ddgan_jax.errors import BusyError, UserError
try:
    hosts.join(first_contact=float(sys.argv[1]))
except UserError as error:
    sys.exit(f"{type(error).__name__}: {error}")
import jax
print(jax.process_count())
"""


def join(seconds: int, **variables: str) -> tuple[int, str, list[str]]:
    """Return exit code, output and lines of errors of a process with these variables."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI_"))}
    ended = subprocess.run(
        [sys.executable, "-c", JOIN, str(seconds)],
        cwd=ROOT,
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return ended.returncode, ended.stdout, ended.stderr.splitlines()


@pytest.mark.parametrize("process", ["0", "1"])
def test_peers_that_do_not_come_are_told_of_and_waited_for_no_longer_than_said(process):
    address = f"127.0.0.1:{free_port()}"
    variables = STEP | {"SLURM_PROCID": process, "JAX_COORDINATOR_ADDRESS": address}
    code, _, lines = join(2, **variables)
    place = f"ddgan: process {process} of 14"
    assert code == hosts.RUN_AGAIN, lines
    assert [line for line in lines if line.startswith("ddgan")] == lines
    assert lines[0].startswith(f"{place} waits up to 2 s for the others at {address}; ")
    assert lines[1].startswith(f"{place} waited 2 s for the others at {address}, and not all came")
    assert len(lines) == 2


def test_allocation_of_which_one_process_was_started():
    """No wait at all, but a word."""
    shell = STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    code, output, lines = join(60, **shell)
    assert (code, output) == (0, "1\n"), lines
    (line,) = lines
    assert line.startswith("ddgan: this Slurm job has 14 tasks, and this process runs alone; srun ")


def test_port_that_another_process_holds():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BusyError, match=f"{address}: cannot listen at this port"):
            hosts.join(address, 2, 0)
