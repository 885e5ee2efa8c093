"""launch/gpu_local.sh with a stand-in for `ddgan`."""

import shlex
import signal
import subprocess

import pytest

from tests.launch.fakes import LAUNCH, ODD, Fakes, wait_for

GPU_LOCAL = LAUNCH / "gpu_local.sh"
TRAIN = ("train", "--config=c.py", "--workdir=runs/x")
# The N-th run ends as the N-th word of the plan says; "+saved": with a new checkpoint.
PLAN = """
plan=({plan})
run=$(grep -c '^ddgan train' "$FAKES/calls")
word=${{plan[run - 1]}}
if [[ $word == *+saved ]]; then mkdir -p "$FAKES/runs/x/checkpoints/$run"; fi
exit "${{word%+saved}}"
"""
# Counts its signals, ends a moment after the first.
WAITS = """
trap 'echo INT >>"$FAKES/signals"' INT
trap 'echo TERM >>"$FAKES/signals"' TERM
trap 'echo HUP >>"$FAKES/signals"' HUP
trap 'echo USR1 >>"$FAKES/signals"' USR1
touch "$FAKES/ready"
until [[ -e $FAKES/signals ]]; do command -p sleep 0.05; done
command -p sleep 0.3
exit {code}
"""


@pytest.fixture
def machine(tmp_path):
    return Fakes(tmp_path, "ddgan", "sleep")


def test_dry_run_is_what_runs(machine):
    argv = [*TRAIN, *(f"--config.data.name={text}" for text in ODD), "--", "--step=1"]
    dry = machine.run(GPU_LOCAL, *argv[:3], "--dry-run", *argv[3:])
    assert (dry.code, machine.calls()) == (0, [])
    assert machine.run(GPU_LOCAL, *argv).code == 0
    assert machine.calls() == dry.lines
    command = " ".join(dry.lines)
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True
    )
    assert words.stdout.split("\0")[:-1] == ["ddgan", *argv[:-2], "--step=1"]


@pytest.mark.parametrize(
    ("plan", "code", "runs"),
    [
        ("75 75 75 75 0", 0, 5),
        ("2 0", 2, 1),
        ("130 0", 130, 1),
        ("137 1 0", 1, 2),
        ("1 1+saved 1 0", 1, 3),
        ("1 75 0", 0, 3),
    ],
)
def test_exit_codes_decide(machine, plan, code, runs):
    machine.behave("ddgan", PLAN.format(plan=plan))
    ended = machine.run(GPU_LOCAL, *TRAIN, "--max-crashes=2", "--pause=7")
    assert (ended.code, len(machine.calls("ddgan"))) == (code, runs), ended.errors
    assert set(machine.calls("sleep")) <= {"sleep 7"}
    assert ("gave up" in ended.errors) == (code == 1)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        (signal.SIGINT, 130),
        (signal.SIGTERM, 0),
        (signal.SIGHUP, 75),
        (signal.SIGUSR1, 75),
    ],
)
def test_signal_reaches_the_run_once_and_ends_the_turns(machine, number, code):
    machine.behave("ddgan", WAITS.format(code=code))
    launcher = subprocess.Popen(
        [GPU_LOCAL, *TRAIN], env=machine.environment, cwd=machine.folder, stderr=subprocess.DEVNULL
    )
    wait_for((machine.folder / "ready").exists)
    launcher.send_signal(number)
    assert launcher.wait(timeout=30) == code
    assert (machine.folder / "signals").read_text() == number.name[3:] + "\n"
    assert len(machine.calls("ddgan")) == 1


def test_run_under_nohup_outlives_its_terminal(machine):
    machine.behave("ddgan", WAITS.format(code=75))
    launcher = subprocess.Popen(
        ["nohup", GPU_LOCAL, *TRAIN],
        env=machine.environment,
        cwd=machine.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for((machine.folder / "ready").exists)
    launcher.send_signal(signal.SIGHUP)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=30) == 75
    assert (machine.folder / "signals").read_text() == "TERM\n"


def test_folder_that_is_busy_is_asked_again_after_a_pause(machine):
    """Without end, and without counting as a crash; a stop that saved is followed at once."""
    machine.behave("ddgan", PLAN.format(plan="75 75 75 75+saved 0"))
    ended = machine.run(GPU_LOCAL, *TRAIN, "--max-crashes=1", "--pause=7")
    assert (ended.code, machine.calls("sleep")) == (0, ["sleep 7"] * 3)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no verb"),
        (["status"], "unknown verb 'status'"),
        (["train", "--workdir=runs/x"], "--config is missing"),
        (["train", "--config=c.py"], "--workdir is missing"),
        ([*TRAIN, "--max-crashes=0"], "--max-crashes=0 is not a whole number above 0"),
        ([*TRAIN, "-v"], "unknown argument '-v'"),
    ],
)
def test_mistakes_are_one_line_and_code_2(machine, argv, message):
    ended = machine.run(GPU_LOCAL, *argv)
    assert (ended.code, ended.output, machine.calls()) == (2, "", [])
    assert ended.errors.count("\n") == 1 and message in ended.errors


def test_missing_program_is_a_mistake(machine):
    (machine.folder / "bin" / "ddgan").unlink()
    ended = machine.run(GPU_LOCAL, *TRAIN, PATH="/usr/bin:/bin")
    assert ended.code == 2 and "no ddgan on PATH" in ended.errors
    assert (
        shlex.split(machine.run(GPU_LOCAL, *TRAIN, "--skip-check", "--dry-run").output)[0]
        == "ddgan"
    )
