"""Writing places: whole or not at all, by many processes at once, and held against a second one."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.files import atomic, locks
from ddgan_jax.files.paths import entries
from ddgan_jax.files.run_folder import RunFolder

# A content tells of which writer it is and whether it is whole.
PROGRAM = """
import os, sys, time
from ddgan_jax.errors import BusyError
from ddgan_jax.files import atomic, locks

target, seconds, number = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])


def content(turn):
    return bytes([number]) * (200_000 + turn % 1000)


def whole(read):
    return len(set(read)) == 1 and 200_000 <= len(read) < 201_000


end, done, busy = time.monotonic() + seconds, 0, 0
while time.monotonic() < end:
    if number == 0:
        try:
            with open(target, "rb") as file:
                assert whole(file.read()), "torn"
        except FileNotFoundError:
            pass
    elif number % 2:
        atomic.write_atomically(target, content(done))
    else:
        try:
            with locks.only_writer(target), atomic.replacing(target) as unfinished:
                unfinished.write_bytes(content(done))
        except BusyError:
            busy += 1
    done += 1
print(done, busy)
"""


def start(program: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_many_writers_and_a_reader_of_one_place(tmp_path):
    """No torn read, no failed write, nothing left over. SECONDS=20 in the environment: longer."""
    seconds = float(os.environ.get("SECONDS", "3"))
    target = tmp_path / "target"
    processes = [start(PROGRAM, target, seconds, number) for number in (0, 0, 1, 2, 3, 4)]
    for process in processes:
        out, error = process.communicate()
        assert (process.returncode, error) == (0, "")
        assert int(out.split()[0]) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_kill_leaves_the_old_content_whole(tmp_path):
    """kill -9 at random instants of writing: what is there is always one whole content."""
    target, seen = tmp_path / "target", Counter()
    for number in range(1, 13):
        process = start(PROGRAM, target, 60, 2 * number - 1)
        while not target.exists() or (number > 1 and target.read_bytes()[0] != 2 * number - 1):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        time.sleep(0.003 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        read = target.read_bytes()
        assert len(set(read)) == 1 and 200_000 <= len(read) < 201_000
        seen[read[0]] += 1
    assert len(seen) == 12


def test_the_lock_goes_with_its_process(tmp_path):
    place = tmp_path / "out.npz"
    holder = "import sys, time; from ddgan_jax.files.locks import only_writer\n"
    holder += "with only_writer(sys.argv[1]): print('held', flush=True); time.sleep(600)"
    process = start(holder, place)
    assert process.stdout.readline() == "held\n"
    try:
        with pytest.raises(BusyError, match="another process is writing"), locks.only_writer(place):
            pass
    finally:
        process.kill()
        process.communicate()
    with locks.only_writer(place):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with locks.only_writer(tmp_path / "a"), locks.only_writer(tmp_path / "a"):
        pass
    assert "cannot be locked" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a[1].npz", "*", "?", "a b", "é", "\n", "x" * 255, "-", "%41"])
def test_names_are_names(tmp_path, name):
    """What is written under a name is there, alone, and found by its ends."""
    (tmp_path / "other").write_bytes(b"")
    with locks.only_writer(tmp_path / name):
        atomic.write_atomically(tmp_path / name, b"content")
    assert (tmp_path / name).read_bytes() == b"content"
    assert {path.name for path in tmp_path.iterdir()} == {name, "other"}
    assert [path.name for path in entries(tmp_path, name[:1], name[1:][-1:])] == [name]


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), atomic.whole_folder(out) as folder:
        (folder / "a").write_text("x")
        assert not out.exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with atomic.whole_folder(out) as folder:
        (folder / "a").write_text("x")
    with pytest.raises(UserError, match="exists already"), atomic.whole_folder(out):
        pass
    with atomic.whole_folder(out, replace=lambda _: True) as folder:
        (folder / "b").write_text("y")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "b"]


def test_a_torn_line_does_not_swallow_the_next(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b'{"step": 1}\n{"st')
    atomic.append_line(log, '{"step": 2}')
    assert log.read_bytes() == b'{"step": 1}\n{"st\n{"step": 2}\n'


def test_what_cannot_be_written_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / ("x" * 300), Path("/proc/x")):
        with pytest.raises(UserError) as caught:
            atomic.write_atomically(path, b"")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run_folder", [False, True])
def test_a_pipe_in_place_of_a_lock_makes_nobody_wait(tmp_path, run_folder):
    os.mkfifo(tmp_path / ".lock")
    os.mkfifo(tmp_path / ".x.lock")
    run = RunFolder.at(tmp_path)
    with pytest.raises(UserError):
        (run.only_writer() if run_folder else locks.only_writer(tmp_path / "x")).__enter__()
    assert not run.is_being_written()
