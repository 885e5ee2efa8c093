"""Progress as a person sees it in a terminal of any width: nothing wraps, and nothing is left."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pyte
import pytest

from ddgan_jax import progress
from ddgan_jax.cli.terminal import PrintableStream
from ddgan_jax.progress import Display, Pace, duration
from ddgan_jax.progress.line import LINE

ROOT = Path(__file__).parents[1]
WIDTHS = (1, 2, 7, 19, 40, 80, 120, 200)


class Screen:
    """A terminal: a pty, with an emulator that shows what is written to it."""

    def __init__(self, columns: int, rows: int = 12):
        self._emulator = pyte.Screen(columns, rows)
        self._feed = pyte.ByteStream(self._emulator).feed
        self.ours, self.theirs = pty.openpty()
        self.stream = open(self.theirs, "w", encoding="utf-8")  # noqa: SIM115  the fixture closes it
        self.resize(columns)

    def resize(self, columns: int) -> None:
        size = struct.pack("HHHH", self._emulator.lines, columns, 0, 0)
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, size)
        self._emulator.resize(columns=columns)
        self.columns = columns

    def rows(self, seconds: float = 0.0) -> list[str]:
        """Return the rows down to the last that is not empty, after all that has been written."""
        with contextlib.suppress(OSError):  # a pty whose other end was closed
            while select.select([self.ours], [], [], seconds)[0]:
                self._feed(os.read(self.ours, 65536))
        rows = [row.rstrip() for row in self._emulator.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def line(self) -> str:
        """Draw, and return the only line on the screen, which leaves the last column empty."""
        LINE.draw()
        rows = self.rows()
        assert len(rows) <= 1, "the line has wrapped"
        assert all(len(row) < self.columns for row in rows) or self.columns == 1
        return rows[0] if rows else ""

    def wait_for(self, text: str) -> list[str]:
        """Return the rows as soon as one of them has the text."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            rows = self.rows(0.01)
            if any(text in row for row in rows):
                return rows
        raise AssertionError(f"{text!r} did not appear: {rows}")

    def close(self) -> None:
        self.stream.close()
        os.close(self.ours)


@pytest.fixture
def screen(request, monkeypatch):
    """A terminal of 80 columns, or of as many as the test asks for, without NO_COLOR."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    made = Screen(getattr(request, "param", 80))
    yield made
    made.close()
    # Whatever happened, nobody draws any more.
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
    assert not LINE.displays


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of the line, which is drawn when the test draws it."""
    clock = Clock()
    monkeypatch.setattr("ddgan_jax.progress.display.clock", clock)
    monkeypatch.setattr("ddgan_jax.progress.line.TICK", 3600.0)
    return clock


# ----------------------------------------------------------------------------- speed and time left


def test_time_left_leaves_out_compilation_and_steps_of_earlier_processes():
    pace = Pace(num_steps=1000, batch_size=10)
    assert pace.mark(510, now=60.0) is None  # the process began at 500 and compiled for a minute
    assert pace.mark(520, now=65.0) == (20.0, 240.0)  # 100 images in 5 s; 480 steps of 0.5 s
    assert pace.mark(540, now=90.0) == (8.0, 460.0)  # 200 in 25 s; 460 steps at 30 steps in 30 s
    assert pace.mark(540, now=91.0) is None
    assert pace.mark(1000, now=320.0)[1] == 0.0


def test_speed_of_a_window_is_that_of_its_time():
    """One step each second, then two: after a whole window the old speed is forgotten."""
    pace = Pace(num_steps=1000, batch_size=3, window=10.0)
    speeds = [pace.mark(step, now=float(step)) for step in range(21)]
    assert speeds[0] is None and {speed for speed, _ in speeds[1:]} == {3.0}
    for second in range(1, 31):
        speed, _ = pace.mark(20 + 2 * second, now=20.0 + second)
        assert 3.0 < speed <= 6.0
        assert (speed == 6.0) == (second >= 10)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (5_940, "99 min"),
        (12_000, "3 h 20 min"),
        (172_740, "47 h 59 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


# -------------------------------------------------------------------------------------- a training


def fake_training(screen, clock, total=351_195):
    """Yield the line at every moment of a long training whose numbers are as wide as they get."""
    fast, slow = 256 / 12_345, 172_740 / total  # 12,345 images/s, and 47 h 59 min in all
    begin, losses = total // 2, {"d_loss": 0.681, "g_loss": 0.0123}
    others = {"d_gradient_norm": 0.478, "ema_distance": 0.01, "r1": 1e-5}
    with Display(total, begin, title="training", batch_size=256, stream=screen.stream) as display:
        for phase in (
            "drawing the first picture",
            "compiling step 1 of 2",
            "compiling step 2 of 2",
        ):
            display.phase(phase)
            for _ in range(3):
                clock.now += 31.0
                yield screen.line()
            display.step(begin + 1)
            yield screen.line()
        for step in (*range(begin + 2, begin + 40), total - 1, total):
            clock.now += fast if step % 2 else slow
            display.step(step)
            display.numbers(step, others, None, losses)
            yield screen.line()
    yield screen.line()


@pytest.mark.parametrize("screen", WIDTHS, indirect=True)
def test_a_training_stays_on_one_line_and_leaves_none(screen, clock):
    lines = list(fake_training(screen, clock))
    assert lines[-1] == "" and screen.rows() == []
    assert len(set(lines)) > 5 or screen.columns < 40


@pytest.mark.parametrize(
    ("screen", "parts"),
    [
        (40, ("%", "left")),
        (80, ("%", "/351195", "img/s", "left", "d_loss 0.681", "g_loss 0.0123")),
        (120, ("%", "/351195", "images/s", "left", "d_loss", "g_loss", "d_gradient_norm 0.478")),
    ],
    indirect=["screen"],
)
def test_what_each_width_has_room_for(screen, clock, parts):
    lines = list(fake_training(screen, clock))
    compiling = [line for line in lines if line.startswith("compiling step 1 of 2")]
    assert [line.split(" ... ")[1] for line in compiling] == ["31 s", "1 min 02 s", "1 min 33 s"]
    steps = [line for line in lines[:-1] if "%" in line and "left" in line]
    assert len(steps) >= 38
    for line in steps:
        assert all(part in line for part in parts), line


def test_steps_count_when_they_are_done_and_before_the_first_numbers(screen, clock):
    """The caller runs ahead; the line knows speed and time left from the steps behind it."""
    done = 0
    with Display(1000, title="training", batch_size=10, stream=screen.stream) as display:
        display.phase("compiling step 1 of 1")
        for step in range(1, 101):
            display.step(step, lambda step=step: step <= done)
        assert screen.line() == "0%  0/1000  training"
        clock.now, done = 100.0, 10
        assert screen.line() == "1%  10/1000  training"
        clock.now, done = 110.0, 30
        assert screen.line() == "3%  30/1000  20 img/s  8 min left"
        # A compilation in between is no part of the speed.
        display.phase("compiling step 2 of 2")
        clock.now, done = 900.0, 60
        assert screen.line() == "compiling step 2 of 2 ... 13 min 10 s"
        display.step(101, lambda: False)
        assert screen.line() == "6%  60/1000  training"
        clock.now, done = 905.0, 70
        assert screen.line() == "7%  70/1000  20 img/s  8 min left"


def test_a_part_of_the_work_has_the_line_until_it_is_done(screen, clock):
    with Display(1000, 420, title="training", stream=screen.stream) as outer:
        assert screen.line() == "42%  420/1000  training"
        with Display(1000, title="evaluating", unit="images", phase="evaluating") as inner:
            assert screen.line() == "evaluating ... 0 s"
            for _ in inner.counted([range(200), range(200)]):
                LINE.draw()
                clock.now += 2.0
            outer.message("said meanwhile")
            LINE.draw()
            assert screen.rows() == [
                "said meanwhile",
                "evaluating: 40%  400 of 1,000 images  100 img/s  6 s left",
            ]
        LINE.draw()
        assert screen.rows() == ["said meanwhile", "42%  420/1000  training"]
    assert screen.rows() == ["said meanwhile"]


def test_windows_change_their_width(screen, clock):
    with Display(1000, title="training", stream=screen.stream) as display:
        for columns in (120, 40, 11, 3, 80):
            screen.resize(columns)
            clock.now += 10
            display.step(columns)
            display.numbers(columns, {"a": 1.0, "b": 2.0}, None)
            assert screen.line() if columns > 3 else True


def test_names_of_others_command_no_terminal(screen, clock):
    with Display(phase="a\x1b[2Jb\rc\u202e\u5b57", stream=screen.stream):
        assert screen.line() == r"a\x1b[2Jb\rc\u202e\u5b57 ... 0 s"


# ------------------------------------------------------------------------------ with other writers


def test_the_line_makes_room_for_what_others_print(screen, clock):
    out = PrintableStream(screen.stream)
    with progress.phase("starting", gives_way=True), Display(phase="reading", stream=out):
        assert screen.line() == "reading ... 0 s"
        out.write("one\n")
        out.flush()
        LINE.draw()
        assert screen.rows() == ["one", "reading ... 0 s"]
        # Somebody else's line is not written over before it ends.
        out.write("two")
        out.flush()
        LINE.draw()
        assert screen.rows() == ["one", "two"]
        out.write(" and three\n")
        out.flush()
        LINE.draw()
        assert screen.rows() == ["one", "two and three", "reading ... 0 s"]
    assert screen.rows() == ["one", "two and three"]


def test_time_passes_on_the_line_while_the_work_is_in_one_call(screen, monkeypatch):
    monkeypatch.setattr("ddgan_jax.progress.line.TICK", 0.01)
    with Display(phase="compiling", stream=screen.stream):
        assert screen.wait_for("compiling ... 1 s") == ["compiling ... 1 s"]


def test_an_error_ends_the_line(screen, clock):
    with pytest.raises(ValueError), Display(10, stream=screen.stream) as display:
        assert screen.line() == "0%  0/10"
        display.phase("compiling")
        raise ValueError
    assert screen.rows() == []


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_plain_lines_where_they_are_asked_for(screen, clock, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with Display(1000, title="training", stream=screen.stream) as display:
        display.phase("compiling step 1 of 2")
        clock.now = 34.0
        display.step(1)
        display.numbers(1, {"loss": 0.5}, (20.0, 60.0), {"main": 1.0})
    assert screen.rows() == [
        "compiling step 1 of 2 took 34 s",
        "step 1/1000  loss 0.5  20 images/s  60 s left",
    ]


# Works on step 201 until it is told to end, and then a little longer.
INTERRUPTED = """
import sys, threading
from ddgan_jax import progress, signals
signals.listen()
signals.describe("ddgan train", "the same command goes on")
asked = threading.Event()
def ask(number):
    asked.set()
    return "finishing step 201"
with signals.ask_first(ask), progress.Display(1000, 200, title="training", stream=sys.stdout):
    asked.wait(60)
    threading.Event().wait(60)
"""


def test_ctrl_c_is_noticed_at_once_and_leaves_the_line_whole(screen):
    """The terminal itself shows ^C, and the thread of signals writes: both in the same line."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        stdin=screen.theirs,
        stdout=screen.theirs,
        stderr=screen.theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    assert screen.wait_for("training") == ["20%  200/1000  training"]
    os.write(screen.ours, b"\x03")
    screen.wait_for("noticed")
    rows = screen.wait_for("20%")
    said = "ddgan train: Ctrl-C noticed: finishing step 201; once more ends at once"
    assert rows == [said, "20%  200/1000  training"]
    os.write(screen.ours, b"\x03")
    assert process.wait(60) == 130
    assert screen.rows() == [said, "ddgan train: interrupted; the same command goes on"]
