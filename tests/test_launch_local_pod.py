"""launch/local_pod.py with a stand-in for the program, tests/launch/package."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.fakes import LAUNCH, ODD, SCRIPTS, load, wait_for

LOCAL_POD = (sys.executable, str(LAUNCH / "local_pod.py"))
TRAIN = ("train", "--config=c.py", "--workdir=runs/x")
FORCED = "--xla_force_host_platform_device_count"


class Rehearsal:
    """A pod of stand-ins; `stand_in` is what they do, Python source that knows its `index`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(SCRIPTS / "package"),
            "NOTES": str(folder),
            "XLA_FLAGS": f"{FORCED}=7 --xla_backend_optimization_level=0",
        }

    def start(self, stand_in: str, *argv: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            [*LOCAL_POD, *argv, *TRAIN],
            cwd=self.folder,
            env={**self.environment, "STAND_IN": stand_in},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, stand_in: str, *argv: str) -> tuple[int, list[str]]:
        """The exit code, and what was printed."""
        launcher = self.start(stand_in, *argv)
        output, errors = launcher.communicate(timeout=60)
        assert errors == ""
        return launcher.returncode, output.splitlines()

    def calls(self, count: int = 2) -> list[dict]:
        """What each process noted about its start; waits until all have."""
        files = [self.folder / f"{index}.json" for index in range(count)]
        for file in files:
            wait_for(file.exists)
        return [json.loads(file.read_text()) for file in files]


@pytest.fixture
def rehearsal(tmp_path):
    return Rehearsal(tmp_path)


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent does not."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


# ---------------------------------------------------------------------------- what each one gets


def test_processes_get_peers_and_devices(rehearsal):
    assert rehearsal.run("", "--processes=3", "--devices=4", "--port=4321") == (0, [])
    for index, call in enumerate(rehearsal.calls(3)):
        peers = ["--coordinator=127.0.0.1:4321", "--num-processes=3", f"--process-id={index}"]
        assert call["argv"] == [*TRAIN, *peers]
        assert call["environment"]["JAX_PLATFORMS"] == "cpu"
        flags = call["environment"]["XLA_FLAGS"].split()
        assert [flag for flag in flags if flag.startswith(FORCED)] == [f"{FORCED}=4"]
        assert "--xla_backend_optimization_level=0" in flags  # the user's own


def test_dry_run_is_what_runs(rehearsal):
    argv = [*TRAIN, *(f"--config.data.name={text}" for text in ODD)]
    command = [*LOCAL_POD, "--port=4321", "--dry-run", *argv]
    printed = subprocess.run(
        command, env=rehearsal.environment, cwd=rehearsal.folder, capture_output=True, text=True
    )
    words = shlex.split(printed.stdout)
    starts = [index for index, word in enumerate(words) if word == "env"]
    assert printed.returncode == 0 and len(starts) == 2 and not list(rehearsal.folder.iterdir())
    assert rehearsal.run("", "--port=4321")[0] == 0
    for start, call in zip(starts, rehearsal.calls(), strict=True):
        variables = {f"{name}={value}" for name, value in call["environment"].items()}
        assert variables <= set(words[start : start + 4])
        program = words[start + 4 :][: 3 + len(argv) + 3]
        assert program == [sys.executable, "-m", "ddgan_jax", *argv, *call["argv"][-3:]]


def test_ports_are_chosen_anew(capsys):
    """Two pods on one machine do not meet."""
    for _ in range(2):
        assert load("local_pod").main(["--dry-run", "--skip-check", *TRAIN]) == 0
    ports = re.findall(r"--coordinator=127\.0\.0\.1:(\d+)", capsys.readouterr().out)
    assert len(ports) == 4 and len(set(ports)) == 2


def test_lines_are_marked_and_whole(rehearsal):
    stand_in = """
for part in ("a", "b\\nc", " d\\n", "without an end"):
    print(part, end="", flush=True)
    time.sleep(0.05)
print(f" of {index}", end="", file=sys.stderr)
"""
    code, lines = rehearsal.run(stand_in)
    assert code == 0
    for index in range(2):
        own = [line[4:] for line in lines if line.startswith(f"[{index}] ")]
        assert own == ["ab", "c d", f"without an end of {index}"]
    assert len(lines) == 6


# ------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([75, 75], 75), ([137, 75], 75), ([75, 2], 2), ([0, 134, 1], 134)],
)
def test_verdict(codes, code):
    """A mistake of the user outranks the 75 of peers who only lost a process."""
    assert load("local_pod").verdict(codes) == code


@pytest.mark.parametrize(("ends", "code"), [("sys.exit(75 * index)", 75), ("os.abort()", 134)])
def test_exit_code_of_the_pod(rehearsal, ends, code):
    assert rehearsal.run(ends) == (code, [])


def test_survivors_have_a_while_to_end_by_themselves(rehearsal):
    stand_in = "if index == 0: time.sleep(0.5); print('saved'); sys.exit(75)\nsys.exit(1)"
    assert rehearsal.run(stand_in, "--grace=30") == (75, ["[0] saved"])


def test_survivors_that_hang_are_killed(rehearsal):
    code, lines = rehearsal.run("if index == 1: sys.exit(3)\ntime.sleep(60)", "--grace=1")
    assert (code, lines) == (3, ["[0] killed: still running 1 s after the first end"])


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda n: n.name
)
def test_signals_reach_every_process_once(rehearsal, number):
    stand_in = "until_signal(); print([s.name for s in received]); sys.exit(75)"
    launcher = rehearsal.start(stand_in.replace("s.name", "signal.Signals(s).name"))
    rehearsal.calls()
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 75
    assert sorted(output.splitlines()) == [f"[{i}] ['{number.name}']" for i in range(2)]


def test_ctrl_c_in_a_terminal_reaches_every_process_once(rehearsal):
    """A terminal signals every process of the launcher's group."""
    stand_in = "until_signal(); print(len(received)); sys.exit(130)"
    launcher = rehearsal.start(stand_in, start_new_session=True)
    rehearsal.calls()
    os.killpg(launcher.pid, signal.SIGINT)
    assert sorted(launcher.communicate(timeout=30)[0].splitlines()) == ["[0] 1", "[1] 1"]
    assert launcher.returncode == 130


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes of their parent")
def test_processes_do_not_outlive_the_launcher(rehearsal):
    launcher = rehearsal.start("time.sleep(60)")
    processes = [call["pid"] for call in rehearsal.calls()]
    assert all(map(is_alive, processes))
    launcher.kill()
    wait_for(lambda: not any(map(is_alive, processes)))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no command of ddgan"),
        (["--processes=2"], "no command of ddgan"),
        (["--processes=0", *TRAIN], "0 is not a whole number above 0"),
        (["--port=99999999", *TRAIN], "99999999 is above 65535, the largest port"),
        (["--proceses=2", *TRAIN], "unrecognized arguments: --proceses=2"),
    ],
)
def test_mistakes_are_one_line_and_code_2(capsys, argv, message):
    with pytest.raises(SystemExit) as ended:
        load("local_pod").main(argv)
    output, errors = capsys.readouterr()
    assert (ended.value.code, output, errors.count("\n")) == (2, "", 1) and message in errors
