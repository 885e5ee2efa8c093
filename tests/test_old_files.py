"""Files of an older version: its runs resume, and its exports draw the images that they drew then.

golden/old_run and golden/old_export were written by version 0.1.0 (commit 3b2f9c3), before the
package was divided into rooms; golden/README.md has the commands. A change of format that makes
one of these tests fail needs a reader for the older format, not new files.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import ddgan_jax
from ddgan_jax.config import from_stored
from ddgan_jax.config.files import from_dict
from ddgan_jax.errors import UserError
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.training import loop

GOLDEN = Path(__file__).parent / "golden"
SEEDS = range(8)
# The older version ran on one device and with XLA's optimisation, the tests run on four without.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def old_run(tmp_path) -> Path:
    return Path(shutil.copytree(GOLDEN / "old_run", tmp_path / "run"))


def config_of(run: Path, **changes):
    config = from_dict(from_stored(json.loads((run / "config.json").read_text())).to_dict())
    config.update_from_flattened_dict(changes)
    return config


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected_images() -> np.ndarray:
    with np.load(GOLDEN / "old_export_images.npz") as arrays:
        return arrays["images"]


def test_an_old_run_resumes_and_its_next_steps_are_those_of_the_older_version(old_run, capsys):
    before = (old_run / "metrics.jsonl").read_bytes()
    events = {path.name for path in old_run.glob("events.out.tfevents.*")}

    loop.train(config_of(old_run, **{"train.num_steps": 8}), old_run)

    assert "continuing after step 6 of 8" in capsys.readouterr().out
    assert (old_run / "metrics.jsonl").read_bytes().startswith(before)
    found, wanted = lines(old_run / "metrics.jsonl"), lines(GOLDEN / "old_run_next.jsonl")
    assert [line["step"] for line in found] == list(range(1, 9))
    for line, then in zip(found[6:], wanted, strict=True):
        assert line.keys() == then.keys()
        for name in then.keys() - {"time", "images_per_second"}:
            np.testing.assert_allclose(line[name], then[name], err_msg=name, **TOLERANCE)
    assert [start["step"] for start in lines(old_run / "machine.jsonl")] == [0, 6]
    assert (old_run / "samples" / "step_8.png").exists()
    assert (old_run / "checkpoints" / "8").exists()
    assert events < {path.name for path in old_run.glob("events.out.tfevents.*")}


def test_an_old_run_refuses_another_config(old_run):
    with pytest.raises(UserError, match=r"train\.batch_size: 8 in the run folder, 12 now"):
        loop.train(config_of(old_run, **{"train.batch_size": 12}), old_run)


def test_an_old_run_draws_the_images_of_its_time(old_run):
    np.testing.assert_allclose(
        ddgan_jax.load(old_run).sample(SEEDS), expected_images(), **TOLERANCE
    )


def test_the_records_of_an_old_run_are_read_without_a_complaint(old_run):
    complaints = []
    folder = RunFolder.at(old_run)
    metrics = folder.read_metrics(report=complaints.append)
    starts = folder.read_starts(report=complaints.append)
    assert not complaints
    assert [line.step for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[5].metrics["g_loss"] == 0.8026943206787109
    assert [start.jax for start in starts] == ["0.10.2"]


def test_an_old_export_draws_the_images_of_its_time():
    model = ddgan_jax.load(GOLDEN / "old_export")
    assert (model.step, model.kind) == (6, "ema")
    np.testing.assert_allclose(model.sample(SEEDS), expected_images(), **TOLERANCE)


def test_the_program_of_an_old_export_draws_the_images_of_its_time():
    about = json.loads((GOLDEN / "old_export" / "config.json").read_text())
    content = (GOLDEN / "old_export" / "sampler.stablehlo").read_bytes()
    program = jax.export.deserialize(content)
    images = program.call(np.asarray(SEEDS, np.uint32))
    assert about["sampler"]["result"] == "float32 (N, 1, 1, 2)"
    np.testing.assert_allclose(images, expected_images(), **TOLERANCE)
