"""Join the processes of a job, and end this one when another is lost.

A job on several hosts runs one process on each, all with the same command. They meet at a
coordinator, which the first process runs, before anything touches a device; from then on
`jax.devices()` returns the devices of all hosts. The job cannot go on without one of its processes.
The others then end with RUN_AGAIN where an exchange with the lost one fails, or are aborted by JAX
(SIGABRT) where nothing is heard of it for most of the peer timeout. The same commands start the job
again from the last checkpoint.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from ddgan_jax.errors import BusyError, UserError, reason
from ddgan_jax.signals import RUN_AGAIN
from ddgan_jax.training import clusters
from ddgan_jax.training.clusters import MOST_PROCESSES, Job

# The processes of one job may start so far apart.
FIRST_CONTACT_SECONDS = 300


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    peer_timeout: int = 120,
    first_contact: float = FIRST_CONTACT_SECONDS,
) -> None:
    """Join the other processes of the job; do nothing for a process that runs alone.

    Call this before anything touches a device. coordinator: HOST:PORT of process 0, with
    num_processes and process_id, which counts from 0; all None on TPU pods, Slurm and Open MPI,
    which say so themselves. peer_timeout: seconds within which a lost peer ends this process.
    first_contact: seconds within which all processes must have started, else this one ends with
    RUN_AGAIN. Lines about the wait go to stderr. Raises UserError for arguments or variables that
    make no sense, BusyError for a port or a device that another process holds.
    """
    job = _given_job(coordinator, num_processes, process_id) or clusters.find_job(os.environ)
    if job is None or job.num_processes == 1:
        # Somebody who forgot srun would train the same run alone, with a fraction of the devices.
        if tasks := clusters.unused_tasks(os.environ):
            _say(
                f"this Slurm job has {tasks} tasks, and this process runs alone; srun starts one "
                "each"
            )
        # Without a job JAX is asked below, for it alone recognises TPU pods.
        if job:
            return
    elif job.process_id == 0:
        _check_port(job.coordinator)
    if job:
        _say(
            f"{_place(job)} waits up to {first_contact:g} s for the others at {job.coordinator}; "
            "all must be started, by srun, mpirun or with the coordinator's address"
        )
    if _initialize(job, first_contact, peer_timeout):
        _meet()


def _initialize(job: Job | None, first_contact: float, peer_timeout: int) -> bool:
    """Let JAX join the job, or find one if it is None; return whether there is any.

    Ends the process if not all others come. Raises UserError and BusyError as `join`.
    """
    import jax

    where = f" at {job.coordinator}" if job else ""

    def initialize() -> None:
        jax.distributed.initialize(
            coordinator_address=job.coordinator if job else None,
            num_processes=job.num_processes if job else None,
            process_id=job.process_id if job else None,
            local_device_ids=job.gpus if job else None,
            cluster_detection_method="deactivate" if job else None,
            # Longer than ours, since the library aborts the process at its end.
            initialization_timeout=int(first_contact) + 60,
            # A silent peer is missed after the first; the rest of the time is for going down.
            heartbeat_timeout_seconds=max(peer_timeout * 2 // 3, 1),
            shutdown_timeout_seconds=max(peer_timeout // 4, 1),
        )

    try:
        _within(first_contact, initialize)
    except TimeoutError:
        _say(
            f"{_place(job)} waited {first_contact:g} s for the others{where}, and not all came; "
            "start all processes of the job together"
        )
        # An orderly exit would let JAX go down with a page of its own about this.
        os._exit(RUN_AGAIN)
    except ValueError as error:
        if job is None and "coordinator_address" in str(error):
            # JAX has found no cluster.
            return False
        raise UserError(f"JAX cannot join the job: {reason(error)}") from error
    except RuntimeError as error:
        raise BusyError(f"the processes of the job did not meet{where}: {reason(error)}") from error
    return True


def _given_job(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Job | None:
    if coordinator is None and num_processes is None and process_id is None:
        return None
    if coordinator is None or num_processes is None or process_id is None:
        raise UserError("`coordinator`, `num_processes` and `process_id` belong together: give all")
    if not 1 <= num_processes <= MOST_PROCESSES:
        raise UserError(f"`num_processes={num_processes}` must lie between 1 and {MOST_PROCESSES}")
    if not 0 <= process_id < num_processes:
        raise UserError(f"`process_id={process_id}` must lie between 0 and {num_processes - 1}")
    clusters.check_address(coordinator, "coordinator")
    return Job(num_processes, process_id, coordinator)


def _check_port(coordinator: str) -> None:
    """Refuse a port that another process holds: JAX's service would crash there."""
    port = int(coordinator.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except PermissionError as error:
        raise UserError(
            f"{coordinator}: this port is not for users; take one above 1023"
        ) from error
    except OSError as error:
        raise BusyError(
            f"{coordinator}: cannot listen at this port ({reason(error)}); another process may "
            "hold it"
        ) from error


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Call a function that cannot be interrupted. Raises what it raises, or TimeoutError.

    After a TimeoutError the call still goes on, in a thread that ends with the process.
    """
    # JAX waits for the other processes in C++, where no exception of Python reaches it.
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    if raised:
        raise raised[0]


def _meet() -> None:
    """Open the devices, and the connections between the processes' CPUs."""
    import jax

    from ddgan_jax import distributed

    distributed.all_devices()
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # Between CPUs the first exchange opens the connections, and fails after 30 s if a process
        # still compiles. At this point all processes are together.
        with lost_peers_end_the_process():
            multihost_utils.sync_global_devices("joined")


def _place(job: Job | None) -> str:
    return f"process {job.process_id} of {job.num_processes}" if job else "this process"


def _say(line: str) -> None:
    print(f"ddgan: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def lost_peers_end_the_process() -> Iterator[None]:
    """End the process at once, with RUN_AGAIN, when an exchange with another process fails.

    An orderly exit would wait for the lost process.
    """
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        # A process that runs alone has lost nobody: the error is its own.
        if jax.process_count() == 1:
            raise
        place = f"process {jax.process_index()} of {jax.process_count()}"
        _say(
            f"{place}: another process of the job was lost ({reason(error)}); the same commands "
            "continue from the last checkpoint"
        )
        os._exit(RUN_AGAIN)
