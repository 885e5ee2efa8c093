"""What is kept for the next time, and where results go: never in the way, never torn or lost."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ddgan_jax import cli
from ddgan_jax.errors import NotFiniteError, UserError
from ddgan_jax.evaluation import cache, features, reference, results, scorer
from ddgan_jax.evaluation.features import FeatureNetwork, Features
from ddgan_jax.evaluation.gather import Gathered, gather
from ddgan_jax.files import locks
from ddgan_jax.metrics import statistics
from tests.test_features import dataset_of, random_images

SMALL = ["--features=pixels", "--metrics=frechet", "--num=9", "--allow-small"]


def kept(name="references/x.npz", made=None, **arguments):
    """What the cache gives for statistics of two points, and what it said."""
    stats = statistics.add(statistics.empty(2), np.eye(2))
    provenance = statistics.Provenance("none", "none", "x", "y", "pixels")

    def make(where):
        if made is not None:
            made.append(where)
        return statistics.saved(stats, provenance)

    said: list[str] = []
    found = cache.kept(
        name, statistics.load, make, statistics.write, report=said.append, **arguments
    )
    assert found.provenance == provenance
    return said


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ddgan_jax"


# ---- the cache


@pytest.mark.quick
def test_made_once_and_then_kept(folder):
    made: list[str] = []
    assert kept(made=made) == kept(made=made) == []
    assert made == [f"kept in {folder}/references/x.npz"]
    assert kept(made=made, is_enough=lambda found: False) == []
    assert len(made) == 2


@pytest.mark.quick
@pytest.mark.parametrize("content", [b"", b"x" * 99, b"PK\x03\x04" + b"\0" * 99])
def test_a_damaged_file_is_made_anew(folder, content):
    kept()
    (folder / "references" / "x.npz").write_bytes(content)
    made: list[str] = []
    [line] = kept(made=made)
    assert line.startswith("made anew: ") and "x.npz" in line and len(made) == 1
    assert kept(made=made) == [] and len(made) == 1


@pytest.mark.quick
def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda: None)
    made: list[str] = []
    assert kept(made=made) == []
    assert made == ["kept nowhere, as there is no home folder"]


@pytest.mark.quick
def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", "/proc", tmp_path / ("n" * 300)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        [line] = kept()
        assert line.startswith("not kept for the next time: ") and "\n" not in line


@pytest.mark.quick
def test_pipes_and_folders_in_the_cache_end_nothing(folder):
    (folder / "references").mkdir(parents=True)
    os.mkfifo(folder / "references" / "x.npz")
    assert kept()[0].startswith("made anew: ") and kept() == []
    (folder / "references" / "y.npz").mkdir()
    made_anew, not_kept = kept("references/y.npz")
    assert made_anew.startswith("made anew: ") and not_kept.startswith("not kept for the next time")


PROCESS = """
import sys
from tests.test_cache import kept
for number in range(40):
    said = kept(is_enough=lambda found: number % 3 == 0)
    assert said == [], said
"""


def test_processes_that_ask_at_once_all_succeed(folder):
    """Each loads, makes and replaces the same file 40 times: none is ever torn."""
    command = [sys.executable, "-c", PROCESS]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder.parent), "JAX_PLATFORMS": "cpu"}
    running = [subprocess.Popen(command, env=environment) for _ in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    assert [path.name for path in (folder / "references").iterdir()] == ["x.npz"]


def test_statistics_of_another_set_under_the_name_are_made_anew(folder):
    """As a copied or renamed file would be: what it says it was made from decides."""
    network = features.pixels(features.distributed.local_devices())
    dataset, said = dataset_of(random_images(40)), []

    def ask():
        return reference.from_cache(dataset, network, split="train", keep=0, report=said.append)

    first = ask()
    [path] = (folder / "references").iterdir()
    statistics.write(path, dataclasses.replace(first, count=39))
    np.testing.assert_array_equal(ask().mu, first.mu)
    assert len(said) == 2 and all("features of the 40 images" in line for line in said)


# ---- where results go


@pytest.mark.quick
def test_a_result_never_takes_the_name_of_another(tmp_path):
    names = []
    for _ in range(3):
        with results.new_file(tmp_path / "evaluations", "lr0.1") as path:
            path.write_text("{}")
            with results.new_file(tmp_path / "evaluations", "lr0.1") as other:  # at the same time
                names += [path.name, other.name]
    assert names[:2] == ["lr0.1.json", "lr0.1_2.json"] and len({*names[::2]}) == 3
    held = sorted(os.listdir(tmp_path / "evaluations"))
    assert held == ["lr0.1.json", "lr0.1_2.json", "lr0.1_3.json"]


@pytest.mark.quick
def test_a_folder_into_which_nothing_came_goes_again(tmp_path):
    with pytest.raises(UserError, match="why"), results.new_file(tmp_path / "new", "x"):
        raise UserError("why")
    assert not (tmp_path / "new").exists()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("x.png", "cannot write .*x.png: end its name in .json"),
        (".json", "cannot write .*/.json: put a name before its ending"),
        ("..JSON", "cannot write .*/..JSON: put a name before its ending"),
        ("folder.json", "cannot write .*folder.json: it is a folder"),
        ("pipe.json", "cannot write .*pipe.json: it is no regular file"),
        ("null.json", "cannot write .*null.json: it is no regular file"),
        ("file/x.json", "cannot write .*file/x.json: "),
        ("there.json", "there.json exists already: name another file, or move it"),
        ("n" * 300 + ".json", "is too long"),
    ],
)
def test_files_that_cannot_be_written_are_refused_at_once(tmp_path, out, message):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "there.json").write_text("{}")
    (tmp_path / "null.json").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.json")
    with (
        pytest.raises(UserError, match=message),
        locks.output_file(tmp_path / out, ".json", new=True),
    ):
        raise AssertionError("it was begun")


@pytest.mark.quick
@pytest.mark.parametrize(
    "command",
    [
        ["report", "--workdir=none"],
        ["figure", "tradeoff", "--results=none"],
        ["reference", "--dataset=digits", "--features=pixels"],
        ["evaluate", "--images=none", *SMALL],
        ["import", "inception", "--from=none"],
        ["figure", "trajectory", "--workdir=none"],
    ],
)
def test_a_second_writer_is_told_to_come_again(tmp_path, monkeypatch, command, capsys):
    """Before anything is opened; with the exit code upon which launchers start a command again."""
    endings = {"report": "html", "figure": "svg", "evaluate": "json"}
    ending = "png" if "trajectory" in command else endings.get(command[0], "npz")
    out = tmp_path / f"out.{ending}"
    monkeypatch.setattr(locks, "PATIENCE", 0)
    np.save(tmp_path / "x.npy", random_images(9))
    command = [part.replace("--images=none", f"--images={tmp_path / 'x.npy'}") for part in command]
    with locks.only_writer(out):
        assert cli.main([*command, f"--out={out}"]) == 75
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "another process is writing" in errors
    assert not out.exists()


# ---- numbers that are none


@pytest.mark.quick
def test_features_that_are_not_finite_are_an_error():
    broken = FeatureNetwork(
        "pixels", {}, lambda batch: Features(np.full((len(batch), 2), np.nan, np.float32), None), 8
    )
    with pytest.raises(NotFiniteError, match="the pixels features of some images are not finite"):
        gather([random_images(9)], broken, total=9, keep=0)


@pytest.mark.quick
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_that_are_not_finite_are_an_error():
    stats = statistics.add(statistics.empty(2), np.array([[0.0, 1e155], [1e155, 0.0]]))
    real = statistics.saved(
        statistics.add(statistics.empty(2), np.eye(2)),
        statistics.Provenance("none", "none", "x", "y", "pixels"),
    )
    fake = Gathered(stats, np.zeros((0, 2), np.float32), None, None)
    with pytest.raises(NotFiniteError):
        scorer.compute(["frechet"], fake, real)


def test_no_result_holds_nan(tmp_path, monkeypatch, capsys):
    """A reference of NaN, or one whose numbers overflow: exit code 2, and nothing is written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", random_images(9))
    real = tmp_path / "real.npz"
    assert cli.main(["reference", "--dataset=digits", "--features=pixels", f"--out={real}"]) == 0
    with np.load(real) as file:
        whole = dict(file)
    argv = ["evaluate", f"--images={tmp_path / 'x.npy'}", f"--reference={real}", *SMALL]
    for change in ({"mu": whole["mu"] * np.nan}, {"sigma": whole["sigma"] * 1e300}):
        np.savez(real, **{**whole, **change})
        capsys.readouterr()
        assert cli.main([*argv, f"--out={tmp_path / 'out.json'}"]) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1 and str(real) in errors
    np.savez(real, **whole)
    assert cli.main([*argv, f"--out={tmp_path / 'out.json'}"]) == 0
    assert np.isfinite([*json.loads((tmp_path / "out.json").read_text())["metrics"].values()]).all()
