"""The processes of a job: joining them, agreeing when to stop, and losing one.

A job on several hosts runs one process on each, all with the same command. They meet at a
coordinator, the first process, before anything touches a device; from then on `jax.devices()` are
those of all hosts. The job cannot go on without one of them: the others stop, with RUN_AGAIN
where the exchange with the lost one fails, or aborted by JAX (SIGABRT) where nothing is heard of it
for most of the peer timeout. The same commands start the job again from the last checkpoint.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

from ddgan_jax.errors import UserError

RUN_AGAIN = 75  # exit code (EX_TEMPFAIL): stopped early, the same command goes on
FIRST_CONTACT_SECONDS = 300  # that processes of one job may start apart


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    peer_timeout: int = 120,
) -> None:
    """Joins the other processes of the job; does nothing where there is one process alone.

    coordinator: HOST:PORT of process 0, with num_processes and process_id, which counts from 0; all
    None on TPU pods, SLURM and Open MPI, which say so themselves. peer_timeout: seconds within
    which a lost peer ends this process. To be called before anything touches a device. Raises
    UserError if only some are given, or the others do not appear.
    """
    given = (coordinator, num_processes, process_id)
    if any(v is not None for v in given) and None in given:
        raise UserError("--coordinator, --num_processes and --process_id belong together: give all")
    if process_id is not None and not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id} must lie between 0 and {num_processes - 1}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT")
    import jax

    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=FIRST_CONTACT_SECONDS,
            # A silent peer is missed after the first, the rest is for going down.
            heartbeat_timeout_seconds=max(peer_timeout * 2 // 3, 1),
            shutdown_timeout_seconds=max(peer_timeout // 4, 1),
        )
    except ValueError as error:
        if coordinator is not None or "coordinator_address" not in str(error):
            raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the processes of the job did not meet: {reason}") from error
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # Between CPUs the first exchange opens the connections, and gives up after 30 s on a
        # process that still compiles. Now they are together.
        with lost_peers_end_the_process():
            multihost_utils.sync_global_devices("joined")


@contextlib.contextmanager
def lost_peers_end_the_process() -> Iterator[None]:
    """Ends the process at once, with RUN_AGAIN, when an exchange with another process fails.

    Going down in good order would wait for the lost one.
    """
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        print(
            f"ddgan: process {jax.process_index()} of {jax.process_count()}: another process of "
            f"the job was lost ({reason}); the same commands continue from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(RUN_AGAIN)
