"""Requests: which images of which model a job holds, and the command that writes them."""

import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image

from ddgan_jax import cli, models
from ddgan_jax.errors import UserError
from ddgan_jax.inference import requests, writers
from ddgan_jax.inference.model import Model
from ddgan_jax.inference.requests import Options, make_job
from tests.methods import SMALLEST, config_of, random_params

# ---- which images of which model


@pytest.fixture(scope="module", params=SMALLEST)
def model(request):
    config = config_of(request.param, sampling__chunk_size=3)
    template = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))[0]
    return Model(config, random_params(template), 0, "ema", {})


def drawn(job, positions):
    return np.concatenate(list(job.draw(np.asarray(positions))))


def test_any_part_of_a_job_is_that_part_of_the_whole(model):
    job = make_job(model, range(5), Options())
    np.testing.assert_array_equal(drawn(job, range(5)), model.sample(range(5)))
    np.testing.assert_array_equal(drawn(job, [4, 1]), model.sample([4, 1]))
    has_classes = model.config.data.num_classes > 0
    assert list(job.facts) == ["seeds", "labels"][: 1 + has_classes]


def test_between_neighbours(model):
    job = make_job(model, [3, 7, 9], Options(interpolate=2))
    assert job.num_images == 8
    assert job.facts["seeds"].tolist() == [3] * 4 + [7] * 4
    assert job.facts["other_seeds"].tolist() == [7] * 4 + [9] * 4
    np.testing.assert_allclose(job.facts["weights"], [0, 1 / 3, 2 / 3, 1] * 2, rtol=1e-6)
    assert len(set(job.names())) == 8
    expected = [model.interpolate(a, b, 4) for a, b in ((3, 7), (7, 9))]
    np.testing.assert_array_equal(drawn(job, range(8)), np.concatenate(expected))
    with pytest.raises(UserError, match="`interpolate` needs two seeds"):
        make_job(model, [3], Options(interpolate=2))


def test_begin_with_a_file(model, tmp_path):
    given = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    Image.fromarray(given[..., 0]).save(tmp_path / "x.png")
    job = make_job(model, [1, 2], Options(image=str(tmp_path / "x.png")))
    expected = model.sample([1, 2], images=np.stack([given] * 2), start=model.num_steps // 2)
    np.testing.assert_array_equal(drawn(job, [0, 1]), expected)
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="x.png is damaged, or no PNG"):
        make_job(model, [1], Options(image=str(tmp_path / "x.png")))


def test_all_steps(model, tmp_path):
    job = make_job(model, [1, 2], Options(trajectory=True))
    steps = drawn(job, [0, 1])
    assert steps.shape == (2, model.num_steps, 8, 8, 1)
    np.testing.assert_array_equal(steps[:, -1], model.sample([1, 2]))
    writers.write(job, tmp_path / "x")
    strip = np.asarray(Image.open(tmp_path / "x" / "000002.png"))
    np.testing.assert_array_equal(strip, np.concatenate(list(steps[1, ..., 0]), axis=1))


@pytest.mark.parametrize("other", [{"latent_seed": 3}, {"trajectory": True}, {"interpolate": 1}])
def test_what_was_asked_tells_jobs_apart(model, other):
    plain = make_job(model, [1, 2], Options()).what
    assert plain == make_job(model, [5], Options()).what
    assert plain != make_job(model, [1, 2], Options(**other)).what
    if model.config.data.num_classes:
        assert plain != make_job(model, [1, 2], Options(labels=[1])).what
    other_params = jax.tree.map(lambda a: a + 1, model.params)
    assert plain != make_job(model.with_params(other_params), [1, 2], Options()).what


# ---- the command


@pytest.fixture
def calls(monkeypatch):
    found = []
    stand_in = types.ModuleType("ddgan_jax.inference.requests")
    stand_in.Options = requests.Options
    stand_in.sample_command = lambda *args, **kwargs: found.append((args, kwargs))
    monkeypatch.setitem(sys.modules, "ddgan_jax.inference.requests", stand_in)
    return found


def test_command_receives_its_flags(calls):
    assert cli.main(["sample", "--workdir=w", "--seeds=3,5-6", "--step=40"]) == 0
    flags = "--num=4 --labels=all --denoising_steps=8 --interpolate=2 --latent_seed=1 --image=i.png"
    argv = ["sample", "--export=e", *flags.split(), "--start=1", "--trajectory", "--out=x.npz"]
    assert cli.main(argv) == 0
    [(first, options), (second, more)] = calls
    assert (first, second) == (("w", None), (None, "e"))
    assert options == {
        "seeds": [3, 5, 6],
        "out": "grid.png",
        "options": Options(labels=[]),
        "step": 40,
        "num_steps": 0,
        "captions": None,
        "force": False,
    }
    assert (list(more["seeds"]), more["num_steps"], more["out"]) == ([0, 1, 2, 3], 8, "x.npz")
    assert more["options"] == Options("all", 2, 1, "i.png", 1, True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num=3", "--seeds=1"], "--num=N is short for --seeds=0-(N-1)"),
        (["--num=0"], "--num=0 is not an integer from 1 to "),
        (["--num=many"], "--num=many is not an integer"),
    ],
)
def test_mistakes(calls, capsys, flags, message):
    assert cli.main(["sample", "--export=e", *flags]) == 2
    assert message in capsys.readouterr().err
    assert calls == []


def test_model_must_be_named(capsys):
    assert cli.main(["sample"]) == 2
    assert "name one model, with --workdir=FOLDER or with --export" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kept", "asked", "said"),
    [
        ([300], None, "; the best step so far, 300, is a run folder, too: {}/best"),
        ([200, 400], None, ""),
        ([], None, ""),
        ([300], 400, ""),
    ],
)
def test_a_better_checkpoint_than_the_newest_is_named(tmp_path, kept, asked, said):
    for step in kept:
        (tmp_path / "best" / "checkpoints" / str(step)).mkdir(parents=True)
    newest = Model(config_of("ddgan"), {}, 400, "ema", {})
    assert requests._best_step(str(tmp_path), asked, newest) == said.format(tmp_path)
    assert requests._best_step(None, asked, newest) == ""
