"""Rehearse a pod on this machine: processes that each have CPU devices.

    python launch/local_pod.py --processes=2 --devices=2 \\
        train --config=mog25:tiny --workdir=runs/rehearsal

A training is checked first, as by `ddgan check`. Each process runs
`python -m ddgan_jax COMMAND ...` with the flags by which it finds its peers, as
on machines where JAX cannot find them itself. Lines are marked with the number
of their process; Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP go to all of them, except
what was ignored from the beginning, as SIGHUP is under nohup. Once one has
ended, the others have --grace seconds to end too and are then killed. The exit
code is 0 if all are complete; else 2 if one process ended with 2 (a mistake of
yours), 75 if one ended with 75 (run me again), or that of the first to fail.
"""

import argparse
import ctypes
import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

USER_ERROR = 2
STANDARD_ERROR = 2
RUN_AGAIN = 75
LOOPBACK = "127.0.0.1"
LARGEST_PORT = 65_535
LOOK_SECONDS = 0.1
# From <linux/prctl.h>: the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports a mistake of the user in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: {message}; see --help\n")


# ------------------------------------------------------------------- the command of each process


def command(arguments: Sequence[str], address: str, count: int, index: int) -> list[str]:
    """Return the command of process `index` of `count`; process 0 listens at `address`."""
    peers = [f"--coordinator={address}", f"--num-processes={count}", f"--process-id={index}"]
    return [sys.executable, "-m", "ddgan_jax", *arguments, *peers]


def variables(devices: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that give a process `devices` devices on the CPU."""
    flags = {
        "--xla_force_host_platform_device_count": devices,
        # Many devices on few cores reach a collective minutes apart; XLA would abort after 40 s.
        "--xla_cpu_collective_call_warn_stuck_timeout_seconds": 120,
        "--xla_cpu_collective_call_terminate_timeout_seconds": 600,
    }
    # The user's own flags stay, except those that are set here.
    others = [f for f in inherited.get("XLA_FLAGS", "").split() if f.partition("=")[0] not in flags]
    xla_flags = " ".join([*others, *(f"{name}={value}" for name, value in flags.items())])
    return {"XLA_FLAGS": xla_flags, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """Return a port of the loopback interface at which nobody listens."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


# -------------------------------------------------------------------------------- running them


def start(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a process in a session of its own, so that Ctrl-C reaches it only through us."""
    return subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
    )


def _die_with(parent: int) -> Callable[[], None]:
    """Return a function that a new process calls first, so that it cannot outlive `parent`."""
    libc = ctypes.CDLL(None)

    def ask_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the kernel knew of this.
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel


class Lines:
    """Printer of one process's output in whole lines, each after the process's number."""

    def __init__(self, index: int, pipe: int) -> None:
        self.mark = b"[%d] " % index
        self.pipe = pipe
        self.rest = b""

    def pass_on(self) -> bool:
        """Print the output that has arrived; return False at the end of the stream."""
        chunk = os.read(self.pipe, 1 << 16)
        # The part behind the last line break waits for the rest of its line.
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        if not chunk and self.rest:
            lines = [self.rest]
        sys.stdout.buffer.write(b"".join(self.mark + line + b"\n" for line in lines))
        sys.stdout.buffer.flush()
        return bool(chunk)


def pass_on(selector: selectors.BaseSelector, seconds: float) -> bool:
    """Wait up to so many seconds for output and print it; return False if there is none."""
    ready = selector.select(seconds)
    for key, _ in ready:
        if not key.data.pass_on():
            selector.unregister(key.fileobj)
    return bool(ready)


def supervise(pod: Sequence[subprocess.Popen], grace: float, signals: list[int]) -> list[int]:
    """Wait for all processes; return their exit codes in the order in which they ended.

    grace: seconds after the end of the first process until the others are killed. signals: the
    handlers append the signals that arrive, and this function sends them on to the processes.
    """
    selector = selectors.DefaultSelector()
    for index, process in enumerate(pod):
        # `start` asks for a pipe.
        assert process.stdout is not None
        lines = Lines(index, process.stdout.fileno())
        selector.register(process.stdout, selectors.EVENT_READ, lines)
    alive, codes, deadline = list(enumerate(pod)), [], None
    while alive:
        pass_on(selector, LOOK_SECONDS)
        # The handlers only collect signals: Python code in a handler could run amid any line of
        # this loop.
        while signals:
            number = signals.pop(0)
            for _, process in alive:
                process.send_signal(number)
        ended = [(index, process) for index, process in alive if process.poll() is not None]
        alive = [pair for pair in alive if pair not in ended]
        codes += [_exit_code(process) for _, process in ended]
        if ended and deadline is None:
            deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() > deadline:
            for index, process in alive:
                print(
                    f"[{index}] killed: still running {grace:g} s after the first end", flush=True
                )
                os.killpg(process.pid, signal.SIGKILL)
            deadline = float("inf")
    # This does not wait for the end of the streams, which a process left behind may hold open.
    while pass_on(selector, 0):
        pass
    return codes


def _exit_code(process: subprocess.Popen) -> int:
    # Python gives the negative number of a signal, and shells 128 plus it.
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def verdict(codes: Sequence[int]) -> int:
    """Return one exit code for the pod. codes: of its processes, in the order of their ends."""
    for decisive in (USER_ERROR, RUN_AGAIN):
        if decisive in codes:
            return decisive
    return next((code for code in codes if code), 0)


# -------------------------------------------------------------------------------- command line


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    number = _number(text)
    if number > LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is above {LARGEST_PORT}, the largest port")
    return number


def parser() -> Parser:
    """Return the parser of the launcher's flags, after which the command's own follow."""
    result = Parser(
        prog="local_pod.py",
        description=__doc__,
        usage="python launch/local_pod.py [--flag=value ...] COMMAND [--flag=value ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--processes", type=_number, default=2, metavar="N", help="default 2")
    add("--devices", type=_number, default=2, metavar="N", help="of each process (default 2)")
    add("--grace", type=_number, default=150, metavar="SECONDS", help="default 150")
    add("--port", type=_port, metavar="N", help="of the first process (default: a free one)")
    add("--skip-check", action="store_true", help="do not check a training first")
    add("--dry-run", action="store_true", help="print the commands; run none")
    add("arguments", nargs=argparse.REMAINDER, metavar="COMMAND", help="of ddgan, e.g. train")
    return result


def check_run(options: argparse.Namespace) -> None:
    """End the program with 2 if `ddgan train` would refuse the run on so many devices."""
    verb, *arguments = options.arguments
    if verb != "train" or options.skip_check:
        return
    devices = options.processes * options.devices
    check = [sys.executable, "-m", "ddgan_jax", "check", *arguments, f"--devices={devices}"]
    if code := subprocess.run(check, stdin=subprocess.DEVNULL, stdout=STANDARD_ERROR).returncode:
        sys.exit(code)


def main(argv: Sequence[str]) -> int:
    """Run the pod and return its exit code. argv: without the program's name."""
    parsed = parser()
    options = parsed.parse_args(argv)
    if not options.arguments or options.arguments[0].startswith("-"):
        parsed.error("no command of ddgan, e.g. train --config=... --workdir=...")
    check_run(options)
    address = f"{LOOPBACK}:{options.port or free_port()}"
    extra = variables(options.devices, os.environ)
    commands = [
        command(options.arguments, address, options.processes, index)
        for index in range(options.processes)
    ]
    if options.dry_run:
        for line in commands:
            print(shlex.join(["env", *(f"{k}={v}" for k, v in extra.items()), *line]))
        return 0
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: signals.append(number))
    pod: list[subprocess.Popen] = []
    try:
        for line in commands:
            pod.append(start(line, {**os.environ, **extra}))
        return verdict(supervise(pod, options.grace, signals))
    finally:
        for process in pod:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
