import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks import gpu_pieces, gpu_running, gpu_session
from benchmarks.gpu_pieces import Piece
from ddgan_jax.cli.arguments import parse_config
from ddgan_jax.config.files import load_config, shipped_configs
from ddgan_jax.errors import UserError

ROOT = Path(__file__).parents[1]
PART = "".join(gpu_pieces.PARTS)


@pytest.fixture(autouse=True)
def short_ends(monkeypatch):
    monkeypatch.setattr(gpu_running, "GRACE", 0.0)
    monkeypatch.setattr(gpu_running, "GRACE_OF_A_RUN", 1.0)


def shell(name: str, script: str, seconds: float = 20.0, **more) -> Piece:
    return Piece(name, ("sh", "-c", script), seconds)._replace(**more)


def noting(tmp_path: Path, name: str, script: str = "", **more) -> Piece:
    """Return a piece that writes its name into the file `order`, then does what the script says."""
    return shell(name, f"echo {name} >> {tmp_path / 'order'}; {script}", **more)


def order(tmp_path: Path) -> list[str]:
    file = tmp_path / "order"
    return file.read_text().split() if file.exists() else []


# -------------------------------------------------------------------------------------- sessions


def test_pieces_are_done_once_and_in_order(tmp_path):
    todo = [noting(tmp_path, name) for name in ("c", "a", "b")]
    assert gpu_session.session(todo, tmp_path, 60) == []
    assert gpu_session.session(todo, tmp_path, 60) == []
    assert order(tmp_path) == ["c", "a", "b"] and not gpu_running.left(todo, tmp_path)


def test_piece_that_fails_does_not_stop_the_others(tmp_path):
    bad = noting(tmp_path, "bad", "echo why; exit 3")
    todo = [bad, shell("absent", "")._replace(argv=("no_such_program",)), noting(tmp_path, "good")]
    problems = gpu_session.session(todo, tmp_path, 60)
    assert [line.partition(":")[0] for line in problems] == [
        "bad ended with 3",
        "absent cannot be started",
    ]
    assert (tmp_path / "bad.log").read_text() == "why\n"
    # It is tried once more, and then left out.
    assert [p.name for p in gpu_running.left(todo, tmp_path)] == ["bad", "absent"]
    gpu_session.session(todo, tmp_path, 60)
    gpu_session.session(todo, tmp_path, 60)
    assert order(tmp_path) == ["bad", "good", "bad"]
    assert [p.name for p in gpu_running.given_up(todo, tmp_path)] == ["bad", "absent"]


def test_piece_that_does_not_fit_is_left_to_the_next_call(tmp_path):
    # The first takes a moment of the ten seconds, and the bound of the second is above the rest.
    todo = [
        noting(tmp_path, "a", "sleep 0.2", seconds=9),
        noting(tmp_path, "b", seconds=9.95),
        noting(tmp_path, "c", seconds=0.5),
    ]
    gpu_session.session(todo, tmp_path, 10)
    assert order(tmp_path) == ["a"]  # nor is c, which would fit, drawn forward
    gpu_session.session(todo, tmp_path, 60)
    assert order(tmp_path) == ["a", "b", "c"]


def test_budget_is_kept_whatever_a_piece_does(tmp_path):
    # It ignores the request to end, has a child of its own, and would take far too long.
    hard = shell("hard", f"trap '' TERM; echo $$ > {tmp_path / 'pid'}; sleep 60 & sleep 60", 90)
    start = time.monotonic()
    problems = gpu_session.session([hard], tmp_path, 1.5)
    # No bound on speed: sixty seconds are what it would have taken.
    assert time.monotonic() - start < 30
    assert problems[0].startswith("hard was cut off")
    group = (tmp_path / "pid").read_text().strip()
    there = subprocess.run(["ps", "-o", "stat=", "-g", group], stdout=subprocess.PIPE, text=True)
    assert all(line.startswith("Z") for line in there.stdout.split())


def test_nothing_half_written_is_a_report(tmp_path):
    whole = '{\\"a\\": 1}'
    slow = shell("slow", f'printf "{whole}"; sleep 60', 0.3, report="slow.json")
    half = shell("half", "printf '{'", report="half.json")
    failing = shell("failing", f'printf "{whole}"; exit 1', report="failing.json")
    good = shell("good", f'printf "{whole}"', report="good.json")
    problems = gpu_session.session([slow, half, failing, good], tmp_path, 60)
    words = ["was cut off", "printed no JSON", "ended with 1"]
    assert all(word in line for word, line in zip(words, problems, strict=True))
    assert [p.name for p in tmp_path.glob("*.json")] == ["good.json"]
    assert json.loads((tmp_path / "good.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.glob("*.done")] == ["good.done"]
    assert not list(tmp_path.glob("*.unfinished"))


# A run: it goes on from the largest number in its folder, and needs to come to three. Asked to end,
# it saves one more and ends with the code of runs that go on.
RUN = """
mkdir -p $0; done=$(ls $0 | sort -n | tail -1); done=${done:-0}
trap 'touch $0/$((done + 1)); exit 75' TERM
echo $done >> $0/../begun
[ $done -ge 3 ] || { sleep 60 & wait; }
"""


def test_run_that_is_cut_off_goes_on(tmp_path):
    folder = tmp_path / "checkpoints"
    argv = ("sh", "-c", RUN, str(folder))
    run = Piece("run", argv, 100, progress=folder, least=0.5, keep=(tmp_path / "begun",))
    for done in (1, 2, 3):
        [problem] = gpu_session.session([run, noting(tmp_path, "after")], tmp_path / "out", 3)
        assert "was cut off" in problem and (folder / str(done)).exists()
        # However often: it gets further each time.
        assert gpu_running.tries(run, tmp_path / "out") == 0
    assert gpu_session.session([run, noting(tmp_path, "after")], tmp_path / "out", 30) == []
    assert (tmp_path / "out" / "run_begun").read_text().split() == ["0", "1", "2", "3"]
    assert order(tmp_path) == ["after"]


def test_run_that_gets_no_further_is_left_out(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    # A checkpoint that was being written when the program ended is none.
    script = f"mkdir {folder}/1.orbax-checkpoint-tmp-$$; exec sleep 60"
    run = shell("run", script, progress=folder, least=0.1)
    for _ in range(2):
        assert gpu_session.session([run, noting(tmp_path, "a")], tmp_path, 1.5)
        assert order(tmp_path) == []
    assert gpu_session.session([run, noting(tmp_path, "a")], tmp_path, 60) == []
    assert order(tmp_path) == ["a"] and gpu_running.given_up([run], tmp_path) == [run]


def test_try_that_ends_with_the_machine_counts(tmp_path):
    seen = tmp_path / "seen"
    gpu_session.session([shell("a", f"cat {tmp_path / 'a.tries'} > {seen}")], tmp_path, 60)
    assert seen.read_text() == "1" and gpu_running.tries(shell("a", ""), tmp_path) == 0


def test_second_try_gets_twice_the_time(tmp_path):
    piece = shell("a", "false", 10)
    assert gpu_running.seconds_allowed(piece, tmp_path, 100) == 10
    gpu_session.session([piece], tmp_path, 60)
    assert gpu_running.seconds_allowed(piece, tmp_path, 100) == 20


def test_pieces_side_by_side_meet(tmp_path):
    # Each waits for what the other one writes.
    def wait(name: str, other: str) -> Piece:
        script = f"touch {tmp_path / name}; until [ -e {tmp_path / other} ]; do sleep 0.05; done"
        return shell(name, script, side_by_side="row")

    todo = [wait("a", "b"), wait("b", "a"), noting(tmp_path, "c")]
    assert gpu_session.session(todo, tmp_path, 60) == []
    assert order(tmp_path) == ["c"]


# ------------------------------------------------------------------------------------------ plans


def test_plan_fills_calls_with_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_running, "GRACE", 5.0)
    monkeypatch.setattr(gpu_running, "GRACE_OF_A_RUN", 45.0)
    run = Piece("run", (), 700, progress=tmp_path / "no", least=100)
    row = [Piece(name, (), seconds, side_by_side="x") for name, seconds in (("d", 50), ("e", 90))]
    todo = [Piece("a", (), 300), Piece("b", (), 200), *row, run, Piece("long", (), 900)]
    calls = gpu_session.plan(todo, tmp_path, 540)
    assert [[[(p.name, s) for p, s in unit] for unit in call] for call in calls] == [
        [[("a", 300)], [("b", 200)]],
        # The longest of a row counts, and a run takes what is left but for its end.
        [[("d", 50), ("e", 90)], [("run", 540 - 90 - 45)]],
        [[("run", 700 - 405)]],
        [[("long", 535)]],
    ]
    assert gpu_session.plan([], tmp_path, 540) == []


def session_main(capsys, monkeypatch, todo, *argv: str) -> list[str]:
    monkeypatch.setattr(gpu_pieces, "PARTS", {"a": lambda _: iter(todo)})
    monkeypatch.setattr(gpu_session.signal, "signal", lambda *_: None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ["JAX_COMPILATION_CACHE_DIR"])
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    assert gpu_session.main(["--parts=a", *argv]) == 0
    return capsys.readouterr().out.splitlines()


def test_dry_run_lists_what_would_run(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    todo = [noting(tmp_path, "a"), noting(tmp_path, "b"), noting(tmp_path, "c", seconds=510)]
    todo.append(noting(tmp_path, "d", "exit 1"))
    flag = f"--out={out}"

    def listed() -> list[str]:
        lines = session_main(capsys, monkeypatch, todo, flag, "--dry-run")
        return [line.split()[0] for line in lines if line.startswith("  ")]

    gpu_session.session(todo[:1], out, 60)
    before = order(tmp_path)
    assert listed() == ["b", "c", "d"] and order(tmp_path) == before
    lines = session_main(capsys, monkeypatch, todo, flag, "--dry-run")
    assert [line for line in lines if line.startswith("call")] == [
        "call 1: at most 530 of 540 s",
        "call 2: at most 20 of 540 s",
    ]
    assert session_main(capsys, monkeypatch, todo, flag)[-1].startswith("1 pieces left")
    assert order(tmp_path) == ["a", "b", "c", "d"] and listed() == ["d"]
    last = session_main(capsys, monkeypatch, todo, flag)[-2:]
    assert last[0].startswith("d is left out after 2 tries") and last[1] == "nothing is left"
    assert listed() == []


def test_what_is_missing_is_said_before_the_first_piece(tmp_path, capsys, monkeypatch):
    todo = [noting(tmp_path, "a"), noting(tmp_path, "b", needs=("cifar10",))]
    flags = (f"--out={tmp_path / 'out'}", f"--data={tmp_path}")
    lines = session_main(capsys, monkeypatch, todo, *flags, "--dry-run")
    assert lines[-1].startswith("cifar10 is missing, for b: ddgan prepare --dataset=cifar10")
    with pytest.raises(UserError, match="cifar10 is missing"):
        session_main(capsys, monkeypatch, todo, *flags)
    assert order(tmp_path) == []


def test_parts_are_letters():
    with pytest.raises(UserError, match=f"letters of {PART}"):
        gpu_session.main(["--parts=az", "--dry-run"])


# ------------------------------------------------------------------------------------ the real list


@pytest.fixture
def real(monkeypatch) -> list[Piece]:
    monkeypatch.chdir(ROOT)
    given = gpu_pieces.Session(Path("out"), Path("runs"), "data", 100, 6)
    return gpu_pieces.pieces(PART, given)


def test_every_shipped_config_takes_its_first_step(real):
    names = [piece.name for piece in real]
    assert len(set(names)) == len(names)
    assert {f"gpu_first_{name}" for name in shipped_configs()} <= set(names)


def test_commands_of_the_list_are_known(real):
    settings = set()
    for piece in real:
        if piece.argv[1:2] == ("-m",) and piece.argv[2].startswith("benchmarks."):
            assert (ROOT / f"{piece.argv[2].replace('.', '/')}.py").exists()
        config = [a.removeprefix("--config=") for a in piece.argv if a.startswith("--config=")]
        if config:
            changes = [a for a in piece.argv if a.startswith("--config.")]
            # Many pieces share one setting, and reading a config takes a while.
            settings.add((config[0], *sorted(changes)))
        assert piece.seconds > 0 and (piece.progress is None or 0 < piece.least <= piece.seconds)
        assert "torch" not in " ".join(piece.argv) or piece.needs == ("torch",)
    for config, *changes in settings:
        assert parse_config(config, changes)


def test_one_device_gets_its_share_of_a_batch(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load_config("configs/cifar10_ddgan.py").train.batch_size == 256
    assert gpu_pieces._share("cifar10_ddgan") == 64
