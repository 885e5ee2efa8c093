"""Evaluation during a run, and the best checkpoint. `test_training_loop` has whole runs."""

import json

import jax
import numpy as np
import pytest

from ddgan_jax import build, checkpoint, models
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import UserError
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import drawing
from ddgan_jax.state import DiscriminatorState, GeneratorState, TrainState
from ddgan_jax.training import hooks
from ddgan_jax.training.hooks import Best
from tests.methods import config_of, random_params

NAME = "eval/frechet_pixels_8"


def config(**changes):
    settings = {"eval__every_steps": 5, "eval__features": "pixels", "eval__num_samples": 8}
    return config_of("ddgan", **(settings | changes))


def state(value):
    params = {"kernel": np.full(3, value, np.float32)}
    return TrainState(
        np.int32(value), GeneratorState(params, params, ()), DiscriminatorState(params, ())
    )


def run(workdir, scores, name=NAME, **changes):
    """Offers states with these scores by step, each with its line in metrics.jsonl, as a run."""
    kept = []
    with Best(RunFolder.at(workdir), config(**changes)) as best:
        for step, score in scores.items():
            with (workdir / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, name: score}) + "\n")
            if best.save_if_better(step, {name: score}, state(step)):
                kept.append(step)
            best.wait()
    return kept


def steps_there(workdir):
    return checkpoint.list_steps(workdir / "best" / "checkpoints")


def test_the_best_is_kept_and_only_that(tmp_path):
    assert run(tmp_path, {5: 9.0, 10: 7.0, 15: 8.0, 20: 7.0, 25: 6.5}) == [5, 10, 25]
    assert steps_there(tmp_path) == [25]
    step, _, ema = checkpoint.load_ema(tmp_path / "best" / "checkpoints", report=print)
    assert step == 25
    np.testing.assert_array_equal(ema["kernel"], np.full(3, 25, np.float32))
    assert (tmp_path / "best" / "config.json").exists()


def test_of_a_number_that_should_be_large(tmp_path):
    changes = {"eval__metrics": "prdc,frechet", "eval__best": "recall"}
    name = "eval/recall_pixels_8"
    assert run(tmp_path, {5: 0.1, 10: 0.3, 15: 0.2}, name, **changes) == [5, 10]


def test_a_run_that_goes_on_knows_the_best_so_far(tmp_path):
    assert run(tmp_path, {5: 9.0, 10: 7.0}) == [5, 10]
    assert run(tmp_path, {15: 8.0, 20: 6.0}) == [20]
    assert steps_there(tmp_path) == [20]


def test_a_run_that_repeats_steps_ends_with_the_same(tmp_path):
    """Killed after 20, going on from 5: what is there is what it will come to again."""
    scores = {5: 9.0, 10: 8.0, 15: 6.0, 20: 7.0}
    run(tmp_path, scores)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text(lines[0] + "\n")
    run(tmp_path, {step: scores[step] for step in (10, 15, 20)})
    assert steps_there(tmp_path) == [15]


def test_a_better_number_whose_checkpoint_was_lost_does_not_count(tmp_path):
    """Its line was written, its checkpoint was not: the next that beats what is there is kept."""
    run(tmp_path, {5: 9.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 10, NAME: 1.0}) + "\n")
    assert run(tmp_path, {15: 8.0}) == [15]


def test_nothing_is_made_unless_asked_for(tmp_path):
    assert run(tmp_path, {5: 1.0}, eval__best="") == []
    assert run(tmp_path, {5: 1.0}, eval__every_steps=0) == []
    assert not (tmp_path / "best").exists()


@pytest.mark.quick
def test_when_a_run_is_evaluated():
    due = [step for step in range(1, 13) if hooks.is_due(step, 5, 12)]
    assert due == [5, 10, 12]
    assert not any(hooks.is_due(step, 0, 12) for step in range(1, 13))


@pytest.mark.quick
def test_metrics_of_a_state():
    c = config(optimizer__decay_steps=100, optimizer__decay_interval_steps=1)
    c.optimizer.final_learning_rate = 1e-5
    raw = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([[4.0]], np.float32)}
    ema = {"a": np.array([3.0, 3.0], np.float32), "b": np.array([[8.0]], np.float32)}
    networks = {"g": "generator", "d": "discriminator"}
    rates = {short: build.learning_rate(c, network) for short, network in networks.items()}
    found = hooks.state_metrics(51, GeneratorState(raw, ema, ()), rates)
    assert float(found["ema_distance"]) == pytest.approx(1)  # |(0, 3, 4)| / |(3, 0, 4)|
    for short, network in networks.items():
        first = c.optimizer[f"{network}_learning_rate"]
        assert found[f"{short}_learning_rate"] == pytest.approx((first + 1e-5) / 2)
        # The rate that the 51st step multiplied by.
        assert found[f"{short}_learning_rate"] == rates[short](50)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval__features": "vgg"}, "eval.features='vgg' is not one of inception, classifier"),
        ({"eval__protocol": "clean"}, "eval.protocol='clean' is not one of tf1, pytorch_fid"),
        ({"eval__metrics": "fid"}, "fid is the name of a number from Inception features"),
        ({"eval__metrics": "frechte"}, "no metric 'frechte'; did you mean frechet"),
        ({"eval__metrics": "kernel"}, "kernel needs at least 1,000 images, there are 8"),
        ({"eval__metrics": "modes"}, "modes are counted on data.name='stacked_mnist' or 'stacked_"),
        ({"eval__best": "recall"}, "eval.best='recall' is not one of frechet"),
        ({"eval__num_samples": 0}, "eval.num_samples=0 must be positive"),
        ({"eval__every_steps": -1}, "eval.every_steps=-1 must not be negative"),
    ],
)
def test_settings_that_cannot_work(changes, message):
    with pytest.raises(UserError) as error:
        validate(config(**changes))
    assert message in str(error.value)


@pytest.mark.quick
def test_settings_that_work():
    validate(config())
    validate(config(eval__every_steps=0, eval__metrics="fid"))  # off: nothing is computed


def test_picture_of_the_steps():
    """A row for each of the first seeds of the grids, a column for each step."""
    c = config(log__num_samples=3)

    def make():
        return hooks.make_step_picture(build.sampler(c), drawing.overview(c), jax.devices())

    picture = make()
    template = jax.eval_shape(lambda: models.init_params(c, jax.random.key(0))[0])
    params = random_params(template)
    grid = picture(params)
    scale = (grid.shape[1] - 2) // 16
    assert grid.shape == (3 * 8 * scale + 2 * 2, 2 * 8 * scale + 2, 1)
    c.objective.prediction, c.generator.output_tanh = "x_t", False
    assert make() is None
