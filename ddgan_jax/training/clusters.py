"""Find jobs of Slurm and Open MPI in their variables: processes, coordinator, the GPUs of each.

JAX reads the same variables, but takes any number of tasks for peers that will come, gives a task
the one GPU that has its number on the node, and fails on malformed values. Here a process that was
not started with others is alone, the tasks of a node share all of its GPUs, and a variable that
makes no sense is a UserError that names it. TPU pods are left to JAX.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from ddgan_jax.errors import UserError, shown

MOST_PROCESSES = 2**16
# As in JAX, the job's number chooses one of the last 4,096 ports, so that jobs that share a host
# rarely meet at the same one.
_FIRST_PORT, _PORTS = 2**16 - 2**12, 2**12


class Job(NamedTuple):
    """The processes that were started together, and the place of this one among them.

    coordinator: HOST:PORT of process 0. gpus: which of the visible GPUs this process uses; None:
    all of them.
    """

    num_processes: int = 1
    process_id: int = 0
    coordinator: str = ""
    gpus: list[int] | None = None


def find_job(environment: Mapping[str, str]) -> Job | None:
    """Return the job that Slurm or Open MPI started this process in; None if neither did.

    environment: the process's variables. Raises UserError for variables that make no sense.
    """
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return _open_mpi(_Variables("Open MPI", environment))
    return _slurm(_Variables("Slurm", environment)) if "SLURM_JOB_ID" in environment else None


def check_address(address: str, parameter: str = "") -> None:
    """Refuse an address of the coordinator that is not HOST:PORT. Raises UserError.

    parameter: the name under which a caller gave the address, "" for one from variables.
    """
    given = f"`{parameter}={shown(address)}`" if parameter else f"the coordinator {shown(address)}"
    host, colon, port = address.rpartition(":")
    if not (colon and re.fullmatch(r"\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]@]+", host)):
        hint = "; an IPv6 address stands in brackets, [::1]:1234" if address.count(":") > 1 else ""
        raise UserError(f"{given} is not HOST:PORT{hint}")
    if not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) < 2**16):
        raise UserError(f"{given}: the port must lie between 1 and {2**16 - 1}")


class _Variables(NamedTuple):
    """The environment, for reading numbers from it. author: the program that sets the variables."""

    author: str
    values: Mapping[str, str]

    def number(self, name: str, default: int | None = None, *, most: int = 2**63) -> int:
        """Return the whole number, 0 to `most`, of a variable; `default` if it is not set.

        Raises UserError for anything else, and for a missing variable without default.
        """
        text = self.values.get(name)
        if text is None and default is not None:
            return default
        if text is None or not re.fullmatch(r"[0-9]{1,18}", text) or int(text) > most:
            problem = "is missing" if text is None else f"makes no sense: {shown(repr(text))}"
            raise UserError(f"{self.author}'s variable {name} {problem}; {self.remedy}")
        return int(text)

    @property
    def remedy(self) -> str:
        start = {"Slurm": "srun", "Open MPI": "mpirun"}[self.author]
        return (
            f"start the processes with {start}, or give `coordinator`, `num_processes` and "
            "`process_id`"
        )


def _slurm(variables: _Variables) -> Job | None:
    # A shell or a batch script in an allocation knows of the tasks that srun would start; only the
    # variables of a step are about processes that were started.
    values = variables.values
    allocated = variables.number("SLURM_NTASKS", 1, most=MOST_PROCESSES)
    count = variables.number("SLURM_STEP_NUM_TASKS", allocated, most=MOST_PROCESSES)
    rank = variables.number("SLURM_PROCID", 0)
    if rank == 0 and "SLURM_STEP_NODELIST" not in values:
        return None
    # A step of one task is alone. JAX is not asked, which would look for peers.
    if rank == 0 and count == 1:
        return Job()
    _check_rank(variables, "SLURM_PROCID", rank, count)
    nodes = values.get("SLURM_STEP_NODELIST", "")
    # The first node of "node[001-003,7],other" is node001: the list up to a comma outside of
    # brackets, with the first number of each pair of brackets.
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])*", nodes)
    host = re.sub(r"\[([0-9]+)[^\]]*\]", r"\1", first[0] if first else "")
    if not re.fullmatch(r"[\w.-]+", host, re.ASCII):
        raise UserError(
            f"Slurm's variable SLURM_STEP_NODELIST names no node: {shown(repr(nodes))}; "
            f"{variables.remedy}"
        )
    local = variables.number("SLURM_LOCALID", most=count - 1)
    coordinator = _coordinator(variables, host, variables.number("SLURM_JOB_ID"))
    gpus = _gpus(values, local, _slurm_tasks_of_node(variables))
    return Job(count, rank, coordinator, gpus)


def unused_tasks(environment: Mapping[str, str]) -> int:
    """Return how many tasks a Slurm allocation has, if this process is the only one in it; or 0."""
    tasks = _Variables("Slurm", environment).number("SLURM_NTASKS", 0)
    return tasks if tasks > 1 and "SLURM_JOB_ID" in environment else 0


def _slurm_tasks_of_node(variables: _Variables) -> int | None:
    """Return how many tasks of the step run on this node, from a list such as "8(x2),4"."""
    text = variables.values.get("SLURM_STEP_TASKS_PER_NODE", "")
    if not re.fullmatch(r"[0-9]{1,6}(\(x[0-9]{1,6}\))?(,[0-9]{1,6}(\(x[0-9]{1,6}\))?)*", text):
        return None
    # An entry stands for one node or, with (xN), for N nodes, in the order of the nodes.
    node = variables.number("SLURM_NODEID", 0)
    for tasks, times in re.findall(r"([0-9]+)(?:\(x([0-9]+)\))?", text):
        node -= int(times or 1)
        if node < 0:
            return int(tasks)
    return None


def _open_mpi(variables: _Variables) -> Job | None:
    values = variables.values
    count = variables.number("OMPI_COMM_WORLD_SIZE", most=MOST_PROCESSES)
    if count == 1:
        return Job()
    rank = variables.number("OMPI_COMM_WORLD_RANK")
    _check_rank(variables, "OMPI_COMM_WORLD_RANK", rank, count)
    uri = values.get("OMPI_MCA_orte_hnp_uri", "")
    # The job's number, then the address of mpirun's host.
    match = re.match(r"([0-9]{1,18})\.[0-9]+;(?:tcp://([0-9.]+)|tcp6://\[([0-9a-fA-F:]+))", uri)
    if not match:
        raise UserError(
            "Open MPI does not say where its first process is (variable OMPI_MCA_orte_hnp_uri, of "
            "versions before 5): give `coordinator`, `num_processes` and `process_id`"
        )
    local = variables.number("OMPI_COMM_WORLD_LOCAL_RANK", most=count - 1)
    on_node = variables.number("OMPI_COMM_WORLD_LOCAL_SIZE", count, most=count)
    # Open MPI counts jobs in steps of 4,096.
    job_id = int(match[1]) // 2**12
    host = match[2] or f"[{match[3]}]"
    coordinator = _coordinator(variables, host, job_id)
    return Job(count, rank, coordinator, _gpus(values, local, on_node))


def _check_rank(variables: _Variables, name: str, rank: int, count: int) -> None:
    if rank >= count:
        raise UserError(
            f"{variables.author}'s variable {name} is {rank} in a job of {count}; "
            f"{variables.remedy}"
        )


def _coordinator(variables: _Variables, host: str, job_id: int) -> str:
    """Return the address at which process 0 listens; JAX's own variables override the parts."""
    values = variables.values
    port = values.get("JAX_COORDINATOR_PORT") or job_id % _PORTS + _FIRST_PORT
    address = values.get("JAX_COORDINATOR_ADDRESS") or f"{host}:{port}"
    check_address(address)
    return address


def _gpus(values: Mapping[str, str], local: int, on_node: int | None) -> list[int] | None:
    """Return the part of the visible GPUs that belongs to task `local` of a node with `on_node`.

    A task that is alone on its node uses all of them, and so does one whose launcher shows it a
    single GPU. Where the tasks cannot share them evenly, or their number is unknown, the task uses
    GPU `local`, as JAX would choose.
    """
    visible = [gpu for gpu in values.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip()]
    if on_node == 1 or len(visible) == 1:
        return None
    # Without an even share GPUs stay idle, but no two tasks use the same one.
    share = 1
    if on_node and visible and len(visible) % on_node == 0:
        share = len(visible) // on_node
    return list(range(local * share, (local + 1) * share))
