"""What a run tells besides its progress: exact means, tags, writers and their failures, traces."""

import contextlib
import json
import random
import re
import sys
import types

import jax
import numpy as np
import pytest

from ddgan_jax.config import base_config
from ddgan_jax.config.checks import validate
from ddgan_jax.config.observation import WRITERS
from ddgan_jax.errors import UserError
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.training import profile, writers
from ddgan_jax.training.averages import Averages
from ddgan_jax.training.reporter import Reporter
from ddgan_jax.training.tags import GROUPS, tagged
from tests.methods import ROOT
from tests.test_reporter import read_events, read_lines

pytestmark = pytest.mark.quick


def no_report(line):
    raise AssertionError(line)


# ---------------------------------------------------------------------------------------- means


def random_steps(rng):
    """Metrics of many magnitudes; every third step also has R1."""
    for step in range(1, 41):
        loss = float(np.float32(rng.gauss(0, 1) * 10 ** rng.randint(-30, 30)))
        yield {"loss": loss} | ({"r1": float(np.float32(rng.random()))} if step % 3 == 0 else {})


def test_a_mean_does_not_depend_on_where_a_run_was_stopped(tmp_path):
    """Through the file that a stopped run leaves, once and twice: the same bits."""
    folder = RunFolder.at(tmp_path)
    for seed in range(30):
        rng = random.Random(seed)
        steps = list(random_steps(rng))
        whole = Averages(0)
        for metrics in steps:
            whole.add(metrics)
        stops = sorted(rng.sample(range(1, 40), 2))
        found = Averages(0)
        for step, metrics in enumerate(steps, 1):
            found.add(metrics)
            if step in stops:
                folder.write_interval(found.interval(step))
                found = Averages.stored(folder.read_interval(step, report=no_report))
        assert found.means() == whole.means() and found.since == 0


def test_a_mean_is_over_the_steps_that_have_the_metric():
    averages = Averages(100)
    for metrics in ({"loss": 1.0, "r1": 8.0}, {"loss": 2.0}, {"loss": 6.0}):
        averages.add(metrics)
    assert averages.means() == {"loss": 3.0, "r1": 8.0}
    averages.restart(103)
    assert averages.since == 103 and averages.means() == {}
    averages.add({"loss": 5.0})
    assert averages.means() == {"loss": 5.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"sums": {"loss": ["1e999", 3]}},
        {"sums": {"loss": ["9" * 400, 3]}},  # beyond every float
        {"sums": {"loss": ["1/0", 3]}},
        {"sums": {"loss": ["1/2", 0]}},
        {"sums": {"loss": 0.5}},
        {"after": -1},
        {"step": "x"},
    ],
)
def test_a_damaged_interval_is_named_and_the_run_goes_on_without(tmp_path, changes):
    good = {"after": 4, "step": 6, "sums": {"loss": ["3/4", 2]}}
    path = tmp_path / "interval.json"
    path.write_text(json.dumps(good))
    folder, said = RunFolder.at(tmp_path), []
    assert folder.read_interval(6, report=no_report).sums == {"loss": ("3/4", 2)}
    assert folder.read_interval(7, report=no_report) is None  # of another stop
    path.write_text(json.dumps(good | changes))
    assert folder.read_interval(6, report=said.append) is None
    assert len(said) == 1 and said[0].startswith("went on without interval.json: ")


def test_a_stopped_run_tells_its_early_line_again_in_full(tmp_path):
    def tell(out, step, every=4, stop=None):
        out.averages.add({"g_loss": float(step)})
        if step % every == 0 or step == stop:
            out.metrics(step, out.averages.means())
            if step % every:
                out.keep_averages(step)
            else:
                out.averages.restart(step)

    for first, last in ((0, 6), (6, 9)):
        with Reporter(RunFolder.at(tmp_path), steps_done=first, num_steps=9, batch_size=1) as out:
            for step in range(first + 1, last + 1):
                tell(out, step, stop=last)
    lines = [(line["step"], line["g_loss"]) for line in read_lines(tmp_path)]
    assert lines == [(4, 2.5), (8, 6.5), (9, 9.0)]  # 6.5 is the mean of 5, 6, 7 and 8


# ----------------------------------------------------------------------------------------- tags


def test_every_metric_of_the_methods_has_a_group():
    """The names that docs/guide/logging.md explains, and those in the methods' code."""
    known = {name for names in GROUPS.values() for name in names}
    package = ROOT / "ddgan_jax"
    files = [package / "methods" / f"{m}.py" for m in ("ddgan", "siddm", "objective")]
    files += [package / "train_step.py"]
    code = "".join(file.read_text() for file in files)
    used = set(re.findall(r'"([dg]_[a-z_]+|r1)"(?=[\]:])', code))
    assert {"g_loss", "d_logit_real", "d_gradient_norm", "r1", "g_afd"} <= used <= known
    page = (ROOT / "docs" / "guide" / "logging.md").read_text()
    for tag in tagged(dict.fromkeys(known, 0.0)):
        assert f"`{tag}`" in page, tag


def test_scores_and_unknown_names_keep_their_names():
    metrics = {"g_loss": 1.0, "eval/fid_5000": 2.0, "mine": 3.0}
    assert tagged(metrics) == {"loss/g_loss": 1.0, "eval/fid_5000": 2.0, "mine": 3.0}


# -------------------------------------------------------------------------------------- writers


class Fake:
    """Remembers what it is told; fails in what `fails` names."""

    def __init__(self, fails=""):
        self.told, self.fails = [], fails

    def __getattr__(self, name):
        def call(*values, **more):
            self.told.append((name, *values, *more.values()))
            if name == self.fails:
                raise ConnectionError("no route to host")

        return call


@pytest.fixture
def fake(monkeypatch):
    """fake(writer) stands for W&B."""

    def install(writer):
        module = types.SimpleNamespace(open_writer=lambda folder, first_step: writer)
        monkeypatch.setitem(sys.modules, f"{writers.__name__}.wandb_runs", module)
        return writer

    return install


def report_of(tmp_path, steps_done=0, **options):
    return Reporter(
        RunFolder.at(tmp_path), steps_done=steps_done, num_steps=9, batch_size=1, **options
    )


def test_writers_are_told_the_run(tmp_path, fake):
    told = fake(Fake()).told
    fields, grid = {"train": {"seed": 3}}, np.zeros((4, 4, 1), np.uint8)
    with report_of(tmp_path, wanted=["wandb"], config=fields, scores=["eval/fid_10"]) as out:
        out.metrics(5, {"g_loss": 0.5})
        out.samples(5, grid)
    assert told == [
        ("config", fields, ["eval/fid_10"]),
        ("scalars", 5, {"loss/g_loss": 0.5}),
        ("flush",),
        ("image", 5, "samples", grid),
        ("flush",),
        ("close", False),
    ]
    assert not list(tmp_path.glob("events.*"))  # log.writers did not name TensorBoard


def test_a_writer_hears_of_a_run_that_fails(tmp_path, fake):
    told = fake(Fake()).told
    with contextlib.suppress(UserError), report_of(tmp_path, wanted=["wandb"]):
        raise UserError("the loss is not finite")
    assert told[-1] == ("close", True)


@pytest.mark.parametrize("call", ["config", "scalars", "image", "flush", "close"])
def test_a_writer_that_fails_is_left_out_with_one_line(tmp_path, fake, call, capsys):
    fake(Fake(fails=call))
    wanted = ["wandb", "tensorboard"]
    with report_of(tmp_path, wanted=wanted, config={"train": {"seed": 3}}) as out:
        for step in (1, 2):
            out.metrics(step, {"g_loss": 0.5})
            out.samples(step, np.zeros((4, 4, 1), np.uint8))
    said = capsys.readouterr().err
    assert said == "went on without log.writers=wandb: no route to host\n"
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2]
    assert [e.step for e in read_events(tmp_path) if e.summary.value][-1] == 2


def test_a_writer_that_cannot_begin_ends_the_run_in_one_line(tmp_path, monkeypatch, fake):
    def refuse(folder, first_step):
        raise RuntimeError("not logged in\nrun `wandb login`")

    module = types.SimpleNamespace(open_writer=refuse)
    monkeypatch.setitem(sys.modules, f"{writers.__name__}.wandb_runs", module)
    with pytest.raises(UserError, match="^log.writers=wandb cannot begin: not logged in") as error:
        report_of(tmp_path, wanted=["tensorboard", "wandb"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("tensorbord", "log.writers: 'tensorbord' is not one of .*; did you mean tensorboard"),
        ("wandb,", "log.writers: '' is not one of tensorboard"),
        ("wandb,wandb", "log.writers=wandb,wandb names one twice"),
        ("wandb, wandb", "log.writers=wandb, wandb names one twice"),
    ],
)
def test_a_wrong_name_of_a_writer_is_refused_by_the_config(wanted, message):
    config = base_config()
    config.data.name, config.log.writers = "cifar10", wanted
    with pytest.raises(UserError, match=message):
        validate(config)


def test_no_writers_and_all_of_them_are_valid():
    assert set(writers.KINDS) == set(WRITERS)
    config = base_config()
    config.data.name = "cifar10"
    for wanted in ("", "tensorboard", ",".join(WRITERS)):
        config.log.writers = wanted
        validate(config)
        assert ",".join(writers.names(wanted)) == wanted


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'log.writers=wandb needs wandb: pip install "ddgan-jax'):
        writers.check_packages(["wandb"])


def test_a_tracker_keeps_its_name_and_others_keep_theirs(tmp_path):
    folder = RunFolder.at(tmp_path)
    assert writers.kept_name(folder, "wandb", lambda: "a1") == ("a1", False)
    assert writers.kept_name(folder, "mlflow", lambda: "b2") == ("b2", False)
    assert writers.kept_name(folder, "wandb", lambda: "c3") == ("a1", True)
    (tmp_path / "trackers.json").write_text('{"wandb": "../x"}')
    assert writers.kept_name(folder, "wandb", lambda: "d4") == ("d4", False)


def test_tensorboard_has_the_config_and_the_hyper_parameters(tmp_path):
    with report_of(tmp_path, config=base_config().to_dict(), scores=["eval/fid_5000"]):
        pass
    values = {v.tag: v for event in read_events(tmp_path) for v in event.summary.value}
    text = values["config/text_summary"].tensor.string_val[0].decode()
    assert '"ema_decay": 0.9999' in text and all(line[:4] == "    " for line in text.splitlines())
    row = values["_hparams_/session_start_info"].metadata.plugin_data.content
    assert b"train.batch_size" in row and b"diffusion.num_timesteps" in row
    assert b"eval/fid_5000" in values["_hparams_/experiment"].metadata.plugin_data.content


# ------------------------------------------------------------------- trackers, in offline modes


def two_processes(tmp_path, name):
    """A run that is told by two processes; the second does the last step of the first again."""
    grid = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)  # gray, as of the digits
    for first, seed in ((0, 1), (1, 2)):
        config = {"train": {"seed": seed}}
        with report_of(tmp_path / "run", first, wanted=[name], config=config) as out:
            for step in (first + 1, first + 2):
                out.metrics(step, {"g_loss": step + first / 10})
            out.samples(first + 2, grid)


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    two_processes(tmp_path, "wandb")
    kept = RunFolder.at(tmp_path / "run").read_trackers(report=no_report)["wandb"]
    # One file for each process, under the same name, which `wandb sync` makes one run of.
    files = list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{kept}/run-{kept}.wandb"))
    assert len(files) == 2 and all(b"g_loss" in file.read_bytes() for file in files)
    assert all(list(file.parent.rglob("samples_*.png")) for file in files)


def test_mlflow_in_a_local_database(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    two_processes(tmp_path, "mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("ddgan_jax").experiment_id
    (run,) = client.search_runs([experiment])  # one run, although two processes told it
    assert run.info.status == "FINISHED" and run.data.params == {"train.seed": "1"}
    history = client.get_metric_history(run.info.run_id, "loss/g_loss")
    assert sorted((m.step, m.value) for m in history) == [(1, 1), (2, 2), (2, 2.1), (3, 3.1)]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {
        "config.json",
        "images",
    }


def test_trackio_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    two_processes(tmp_path, "trackio")
    api = trackio.Api()
    (run,) = api.runs("ddgan_jax")
    assert run.name == RunFolder.at(tmp_path / "run").read_trackers(report=no_report)["trackio"]


# --------------------------------------------------------------------------------------- traces


def traced(monkeypatch, tmp_path, num_steps, first, last):
    """What a profile does in a run from step `first` to `last`: (step, what) and its messages."""
    done, said = [], []

    @contextlib.contextmanager
    def trace(folder):
        done.append((step, "begins", folder))
        yield
        done.append((step, "ends", folder))

    monkeypatch.setattr(profile, "_trace", trace)
    with profile.Profile(RunFolder.at(tmp_path), first, num_steps, said.append) as traces:
        step = first
        while step < last:
            step += 1
            traces.after(step, {})
    return done, said


def test_a_profile_has_whole_steps_after_compilation(tmp_path, monkeypatch):
    where = tmp_path / "profile"
    done, [line] = traced(monkeypatch, tmp_path, 4, first=100, last=120)
    assert done == [(102, "begins", where), (106, "ends", where)]
    assert line.startswith(f"trace of steps 103 to 106: {where}; to see it: ")


def test_a_profile_that_the_end_of_the_run_cuts_short(tmp_path, monkeypatch):
    done, [line] = traced(monkeypatch, tmp_path, 4, first=0, last=4)
    assert [what for _, what, _ in done] == ["begins", "ends"]
    assert "the steps from 3 on" in line
    done, [line] = traced(monkeypatch, tmp_path, 4, first=0, last=1)
    assert done == [] and line == "no trace: the run ended before the third step of this process"
    assert traced(monkeypatch, tmp_path, 0, first=0, last=9) == ([], [])


def test_a_trace_is_a_file_that_others_read(tmp_path):
    with profile._trace(RunFolder.at(tmp_path).profile):
        jax.block_until_ready(jax.numpy.ones(3) + 1)
    (found,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert found.stat().st_size > 0
