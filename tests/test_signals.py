"""Signals of the program: noticed from the first moment, whatever it is doing, and never lost."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from ddgan_jax.checkpoint import list_steps, load_ema
from ddgan_jax.signals import INTERRUPTED, RUN_AGAIN
from ddgan_jax.training.stopping import SignalledStop
from tests.processes import QUICK_COMPILATION

ROOT = Path(__file__).parents[1]
CODES = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: RUN_AGAIN,
    signal.SIGHUP: RUN_AGAIN,
    signal.SIGUSR1: RUN_AGAIN,
}
# Instants evenly in time up to the first step, of which the imports are the first half; and after
# steps, of which the fourth and the eighth write a checkpoint. One thread handles all signals, and
# what it does depends on the place of the program, or on the signal, alone. So they take turns:
# each comes once in every quarter of the time, and twice after a step, never at the same places.
INSTANTS = [
    *(("second", i / 16) for i in range(16)),
    *(("step", s) for s in (1, 2, 3, 4, 5, 7, 8, 10)),
]
CASES = [(list(CODES)[(i + i // 4) % 4], *instant) for i, instant in enumerate(INSTANTS)]
# Says on its standard error when it begins to listen, then is `ddgan`.
PROGRAM = """
import os, sys
from ddgan_jax import __main__, signals
listen = signals.listen
signals.listen = lambda: (listen(), os.write(2, b"listening\\n"))
sys.exit(__main__.main())
"""


def command(workdir: Path) -> list[str]:
    """Endless training of the smallest model there is, a checkpoint every four steps."""
    values = {
        "train.num_steps": 10**9,
        "train.batch_size": 16,
        "log.every_steps": 1,
        "log.samples_every_steps": 10**9,
        "log.num_samples": 16,
        "sampling.chunk_size": 16,
        "data.max_examples": 100,
        "checkpoint.save_every_steps": 4,
    }
    return [
        *(sys.executable, "-c", PROGRAM, "train", "--config=configs/mog25.py:ddgan_reduced"),
        *(f"--config.{name}={value}" for name, value in values.items()),
        f"--workdir={workdir}",
    ]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | {"XLA_FLAGS": QUICK_COMPILATION, "XDG_CACHE_HOME": str(cache)}


def start(workdir, environment, **options) -> subprocess.Popen:
    process = subprocess.Popen(
        command(workdir),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stderr.readline() == "listening\n"
    return process


def step_of(workdir: Path) -> int:
    log = workdir / "metrics.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen) -> None:
    while step_of(workdir) < step:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def seconds_to_the_first_step(tmp_path_factory, environment) -> float:
    """Of a process whose programs are compiled already, as those of the tests are."""
    for _ in range(2):
        workdir = tmp_path_factory.mktemp("first") / "run"
        began = time.monotonic()
        process = start(workdir, environment)
        wait_for_step(workdir, 1, process)
        seconds = time.monotonic() - began
        process.kill()
        process.communicate()
    return seconds


@pytest.mark.parametrize(("number", "unit", "moment"), CASES)
def test_no_signal_is_lost(number, unit, moment, tmp_path, environment, seconds_to_the_first_step):
    """At an instant up to the tenth step: the documented code, no traceback, nothing lost.

    Where training had begun, the checkpoint of the last step done is there and whole, and it is the
    step that the message has named.
    """
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    ended = "interrupted" if number == signal.SIGINT else f"ended by {name}"
    workdir = tmp_path / "run"
    process = start(workdir, environment)
    if unit == "second":
        time.sleep(0.05 + moment * seconds_to_the_first_step)
    else:
        wait_for_step(workdir, moment, process)
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert process.returncode == CODES[number], error
    if stopped := re.search(r"stopped at step (\d+), checkpoint saved", out):
        step = int(stopped[1])
        assert f"ddgan train: {name} noticed: finishing step {step}, then a checkpoint" in error
        assert list_steps(workdir / "checkpoints")[-1] == step == step_of(workdir)
        assert load_ema(workdir / "checkpoints", report=pytest.fail)[0] == step
    else:
        assert unit == "second" and f"{ended}; " in error.splitlines()[-1], error
    assert "Traceback" not in error and "Exception" not in error
    assert not list(workdir.rglob(".unfinished*"))


@pytest.mark.parametrize("asked_after", range(4, 9))
def test_the_message_names_the_step_at_which_the_run_stops(asked_after):
    """From step 5, the first of this process, to step 8, the last of the run."""
    stop = SignalledStop()
    with stop.accepted(5, 8):
        assert not any(stop.at(step) for step in range(5, asked_after + 1))
        said = stop._ask(signal.SIGINT)
        stopped = [step for step in range(asked_after + 1, 9) if stop.at(step)]
    assert said.startswith(f"finishing step {stopped[0]}," if stopped else "the run is at its end")


def test_a_second_ctrl_c_ends_at_once(tmp_path, environment):
    process = start(tmp_path / "run", environment)
    while step_of(tmp_path / "run") < 2:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGSTOP)  # so that both arrive within one step
    process.send_signal(signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    while "noticed" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED and "Traceback" not in error


def test_what_nohup_ignores_stays_ignored(tmp_path, environment):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start(tmp_path / "run", environment, preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    while step_of(tmp_path / "run") < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == RUN_AGAIN and "SIGTERM noticed" in error


def test_a_terminal_that_goes_away_costs_nothing(tmp_path, environment):
    """Closing the window: SIGHUP, and a terminal to which nothing can be written any more.

    Until then the terminal shows each phase, in lines that leave its last column empty.
    """
    workdir = tmp_path / "run"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        command(workdir),
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    while step_of(workdir) < 5 or b" left" not in written:
        assert process.poll() is None
        assert select.select([ours], [], [], 60)[0], "no sign of progress"
        written += os.read(ours, 65536)
    os.close(ours)
    lines = re.findall(r"[^\r\n]+", written.decode())
    phases = ("starting ", "reading data ", "making the networks ", "compiling the step", "0%  ")
    places = [next(i for i, line in enumerate(lines) if line.startswith(p)) for p in phases]
    assert places == sorted(places)
    assert all(len(line) < 80 for line in lines if line.startswith(phases))
    assert all(part in lines[-1] for part in ("img/s", " left", "d_loss ", "g_loss "))
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == RUN_AGAIN
    assert list_steps(workdir / "checkpoints")[-1] == step_of(workdir) >= 5
