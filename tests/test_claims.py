"""The tables of claims: their rows, what is measured, and an experiment that goes on."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError
from ddgan_jax.experiments import claims, claims_measures, claims_rows, records
from ddgan_jax.experiments.claims import Task
from ddgan_jax.files import foreign
from ddgan_jax.training import loop
from tests import made_up_results
from tests.methods import ROOT

ROWS = [(table, row) for table, t in claims_rows.TABLES.items() for row in t.rows]

# ---- rows


@pytest.mark.quick
@pytest.mark.parametrize(("table", "row"), ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(table, row):
    """Its config is the shipped one, but for the overrides of table and row, and the seed."""
    t = claims_rows.TABLES[table]
    config = claims_rows.row_config(table, row, 7)
    expected = load_config(t.config)
    expected.update_from_flattened_dict({**t.overrides, **t.rows[row].overrides})
    expected.train.seed = 7
    assert config.to_dict() == expected.to_dict()
    assert config.diffusion.num_timesteps in claims_rows.sampling_steps(table, row)


@pytest.mark.quick
@pytest.mark.parametrize("table", claims_rows.TABLES)
def test_no_two_rows_of_a_table_are_the_same(table):
    configs = [
        claims_rows.row_config(table, row, 0).to_json() for row in claims_rows.TABLES[table].rows
    ]
    assert len(set(configs)) == len(configs)


@pytest.mark.quick
def test_names_that_there_are_not():
    with pytest.raises(UserError, match="table 'stacked' is not known"):
        claims_rows.row_config("stacked", "T1", 0)
    with pytest.raises(UserError, match="row 'T3' is not known"):
        claims_rows.row_config("stacked_ddgan", "T3", 0)
    with pytest.raises(UserError, match="`rows`: code is not one of T1, T2"):
        claims.all_tasks(["stacked_ddgan"], ["code"], [0])


# ---- measures


@pytest.fixture(scope="module")
def real():
    """The digits of the package, their labels, and the classifier of their digits."""
    dataset, digits = claims_measures.open_digits(load_config("digits_siddm"))
    known = claims_measures.read_real(dataset, 10_000, digits)
    _, labels = dataset.read(np.arange(len(known.images)))
    return known, labels, digits


def test_real_images_measured_against_themselves(real):
    """No distance, full precision and recall, and the classes that the classifier gets right."""
    known, labels, digits = real
    numbers = claims_measures.measure(known.images, labels, known, digits)
    assert abs(numbers["frechet_pixels"]) < 1e-6
    assert abs(numbers["frechet_classifier"]) < 1e-3
    assert numbers["precision"] == numbers["recall"] == 1.0
    assert numbers["class_right"] > 0.97
    wrong = claims_measures.measure(known.images, (labels + 1) % 10, known, digits)
    assert wrong["class_right"] < 0.03


def test_each_channel_is_read_as_a_digit(real):
    """Stacks of real digits have their modes, and the features of three digits side by side."""
    (images, _), labels, digits = real
    members = np.random.default_rng(0).integers(0, len(images), (3, 500))
    stacks = np.concatenate([images[m] for m in members], axis=-1)
    features, found = claims_measures.read_digits(digits.params, stacks)
    assert (found == labels[members].T).mean() > 0.97
    # A batch of another make-up gives the same numbers but for rounding.
    alone, _ = claims_measures.read_digits(digits.params, images[members[1]])
    np.testing.assert_allclose(features[:, 128:256], alone, rtol=1e-4, atol=1e-4)
    # 500 images cannot have more modes, and ones that repeat ten have ten.
    ten = np.tile(stacks[:10], (50, 1, 1, 1))
    numbers = claims_measures.measure(
        ten, np.zeros(500, int), claims_measures.Real(stacks, features), digits
    )
    assert numbers["modes"] == len({tuple(d) for d in found[:10]})
    np.testing.assert_allclose(numbers["kl"], np.log(1_000 / numbers["modes"]), atol=0.05)


def test_a_row_trains_as_an_ordinary_run(tmp_path):
    """The same averaged parameters as `ddgan train`, up to the rounding of other devices."""
    config = load_config("digits_siddm:tiny")
    dataset, _ = claims_measures.open_digits(config)
    params, seconds = claims_measures.train(config, dataset)
    ema = loop.train(config, tmp_path / "run").generator.ema_params
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(ema), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert seconds > 0


def test_a_row_that_diverges_has_no_numbers(monkeypatch):
    """NaN in a loss is a result, and says so."""
    monkeypatch.setattr(claims_measures, "CHECK_EVERY", 1)

    def row_config(table, row, seed):
        config = load_config("digits_siddm:tiny")
        config.optimizer.generator_learning_rate = 1e38
        config.optimizer.discriminator_learning_rate = 1e38
        config.train.num_steps = 4
        return config

    monkeypatch.setattr(claims, "row_config", row_config)
    result = claims.train_and_measure(Task("digits_siddm", "default", 3))
    assert (result["diverged"], result["numbers"], result["seed"]) == (True, {}, 3)
    # It is read as every other result.
    content = json.dumps(result, allow_nan=False).encode()
    assert foreign.decode_json(content, records.Trained, source="result").diverged


# ---- the experiment


@pytest.mark.quick
def test_what_is_there_is_kept_and_the_rest_is_done_by_seeds(tmp_path, monkeypatch, capsys):
    """A result is never written twice; a row that fails is named, and the others are done."""
    done = []

    def run_all(tasks, out, jobs):
        done.append([(t.row, t.seed) for t in tasks])
        for task in tasks:
            if task.row != "T4":
                made_up_results.write_row(out.parent, *task, {4: {"kl": 1.0}})
        return [task for task in tasks if task.row == "T4"]

    monkeypatch.setattr(claims, "_run_all", run_all)
    arguments = {"tables": ["stacked_ddgan"], "rows": ["T1", "T4"], "seeds": [0, 1]}
    out = tmp_path / "claims"
    with pytest.raises(UserError, match="stacked_ddgan T4 seed 0, stacked_ddgan T4 seed 1; the"):
        claims.run(out, **arguments)
    with pytest.raises(UserError):
        claims.run(out, **arguments)
    assert done == [[("T1", 0), ("T4", 0), ("T1", 1), ("T4", 1)], [("T4", 0), ("T4", 1)]]
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 4 rows are in ")


@pytest.mark.quick
def test_a_damaged_result_is_one_line_and_stays(tmp_path, monkeypatch):
    """Cut off anywhere, empty, of other types, or of another row: nobody trained such a row."""
    monkeypatch.setattr(claims, "_run_all", lambda tasks, out, jobs: [])
    made_up_results.write_row(tmp_path, "stacked_ddgan", "T1", 0, {1: {"kl": 1.0}})
    arguments = {"tables": ["stacked_ddgan"], "rows": ["T1"], "seeds": [0]}
    out = tmp_path / "claims"
    file = out / "stacked_ddgan_T1_0.json"
    whole = file.read_bytes()
    claims.run(out, **arguments)
    damaged = [whole[:n] for n in range(0, len(whole), 37)]
    damaged += [b"[]", b"{}", whole.replace(b'"T1"', b'"T2"'), whole.replace(b"1.0", b'"one"')]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(UserError) as error:
            claims.run(out, **arguments)
        assert str(file) in str(error.value) and "\n" not in str(error.value)
        assert file.read_bytes() == content


def _write_core(task, out, core):
    cores = sorted(os.sched_getaffinity(0)) if core is None else [core]
    task.file(out).write_text(json.dumps([os.getpid(), cores]))
    raise SystemExit(task.row == "T2")


def test_each_row_is_a_process_of_its_own(tmp_path, monkeypatch):
    """More rows than jobs; one that ends with an error is reported and ends no other."""
    monkeypatch.setattr(claims, "_in_process", _write_core)
    tasks = claims.all_tasks(["stacked_ddgan"], ["T1", "T2", "T4"], [0])
    failed = claims._run_all(tasks, tmp_path, 2)
    assert [task.row for task in failed] == ["T2"]
    assert len({json.loads(task.file(tmp_path).read_text())[0] for task in tasks}) == 3


def _wait_for_ever(task, out, core):
    claims._end_with_parent()
    # The system releases the lock when this process ends.
    with task.file(out).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        print("running", file=file, flush=True)
        time.sleep(600)


def _claims_that_wait(out):
    claims._in_process = _wait_for_ever
    claims._run_all([Task("stacked_ddgan", "T1", 0)], Path(out), 1)


def _wait_until(happened):
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _locks(file):
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_rows_end_with_the_experiment(tmp_path, number):
    """No row goes on in the background and writes its result after the command has ended."""
    program = f"from tests import test_claims; test_claims._claims_that_wait({str(tmp_path)!r})"
    path = Task("stacked_ddgan", "T1", 0).file(tmp_path)
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as parent:
        _wait_until(lambda: path.exists() and path.read_text())
        with path.open() as file:
            assert not _locks(file)
            parent.send_signal(number)
            _wait_until(lambda: _locks(file))
