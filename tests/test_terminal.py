"""What the program prints: nobody's name commands a terminal, and a full disk ends nothing."""

import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from ddgan_jax import cli
from ddgan_jax.cli import program
from ddgan_jax.cli.terminal import PrintableStream

ROOT = Path(__file__).parents[1]
SHOW = ["show", "--config=configs/mog25.py:tiny"]


def ddgan(*arguments, **options) -> subprocess.CompletedProcess:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([sys.executable, "-m", "ddgan_jax", *arguments], cwd=ROOT, **options)


def stream() -> tuple[PrintableStream, io.BytesIO]:
    content = io.BytesIO()
    return PrintableStream(io.TextIOWrapper(content, encoding="utf-8")), content


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain é\n", "plain é\n"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb", "a\\rb"),
        ("\r 50% |", "\r 50% |"),
        ("\u202eevil", "\\u202eevil"),
        (os.fsdecode(b"\xff"), "\\xff"),
        ("\x9b2J", "\\x9b2J"),
    ],
)
def test_control_characters_are_shown(text, printed):
    out, content = stream()
    out.write(text)
    out.flush()
    assert content.getvalue().decode() == printed


def test_progress_bars_move_as_ever():
    """Two bars, one below the other, print the same with the stream and without."""

    def bars(file) -> None:
        options = {"file": file, "mininterval": 0, "ncols": 40, "ascii": True}
        for _ in tqdm(range(3), bar_format="{bar}", **options):
            for _ in tqdm(range(2), bar_format="{bar}", **options):
                pass

    out, content = stream()
    bars(out)
    out.flush()
    plain = io.StringIO()
    bars(plain)
    assert content.getvalue().decode() == plain.getvalue()


def test_a_hostile_name_in_a_message():
    result = ddgan("sample", "--workdir=no\x1b]0;title\x07such\x1b[2J")
    assert result.returncode == 2 and result.stderr.count(b"\n") == 1
    assert b"\x1b" not in result.stderr and b"\x07" not in result.stderr


def test_a_full_disk_behind_standard_output():
    with open("/dev/full", "w") as full:
        result = ddgan(*SHOW, stdout=full)
    assert result.returncode == 2
    assert result.stderr == (
        b"ddgan show: standard output cannot be written: No space left on device\n"
    )


def test_a_full_disk_behind_a_help_page_is_one_message():
    with open("/dev/full", "w") as full:
        result = ddgan("help", "train", stdout=full)
    assert (result.returncode, result.stderr) == (
        2,
        b"ddgan train: standard output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams(closed):
    result = ddgan(*SHOW, preexec_fn=lambda: os.close(closed))
    assert result.returncode == 0 and b"Traceback" not in result.stderr


def test_too_few_open_files_are_said_before_anything_is_opened():
    limit = (20, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    result = ddgan(*SHOW, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit))
    assert result.returncode == 2 and result.stderr.count(b"\n") == 1
    assert b"ulimit -n 256" in result.stderr


def test_no_home_and_no_entry_in_passwd():
    """As in containers that run under a number."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    program = (
        "import pwd, sys\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        "from ddgan_jax.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *SHOW], cwd=ROOT, env=environment, capture_output=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["sample", "evaluate", "prepare"])
def test_without_a_folder_to_start_in_nothing_is_begun(command, tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main([command, "--data_dir=x"]) == program.USER_ERROR
    assert "is gone: change to another" in capsys.readouterr().err
