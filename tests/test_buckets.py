"""Run folders in object storage: a local folder stands in for the bucket behind gs://."""

import json
import os
import types

import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from tensorboardX.proto.event_pb2 import SessionLog

from ddgan_jax.cli.training import COMMANDS
from ddgan_jax.config import base_config
from ddgan_jax.config.files import from_json, load_config, to_json
from ddgan_jax.config.run_config import check_same_run, write_config
from ddgan_jax.errors import UserError
from ddgan_jax.files import paths
from ddgan_jax.files.atomic import append_line
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.images import write_png
from ddgan_jax.training import profile, reporter
from ddgan_jax.training.reporter import Reporter
from ddgan_jax.training.writers import tensorboard
from tests.test_reporter import read_events

pytestmark = pytest.mark.quick

RUN = RunFolder.at("gs://bucket/runs/one")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder in which objects of gs://bucket lie."""

    class Bucket(DirFileSystem):
        protocol = ("gs", "gcs")

        def __init__(self, **options):
            super().__init__(path=str(tmp_path), fs=LocalFileSystem(auto_mkdir=True))

        def open(self, path, mode="rb", **options):
            assert "a" not in mode, "objects cannot grow"
            return super().open(path, mode, **options)

    monkeypatch.setattr(backend.fsspec_backend, "fs", lambda path: Bucket(skip_instance_cache=True))
    return tmp_path / "bucket"


def test_a_run_is_told_into_a_bucket(bucket):
    config = base_config()
    write_config(RUN, config)
    check_same_run(RUN, config, report=print)
    for steps_done in (0, 2):  # the second goes on after step 2, and tells step 3 anew
        with Reporter(RUN, steps_done=steps_done, num_steps=4, batch_size=8) as report:
            for step in range(steps_done + 1, 4):
                report.metrics(step, {"loss": step + steps_done / 10})
            report.samples(3, np.zeros((4, 4, 1), np.uint8))
    folder = bucket / "runs" / "one"
    assert from_json((folder / "config.json").read_text()).to_dict() == config.to_dict()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1), (2, 2), (3, 3.2)]
    names = sorted(os.listdir(folder))
    assert [n for n in names if "tfevents" not in n] == ["config.json", "metrics.jsonl", "samples"]
    assert points(folder) == [(1, 1), (2, 2), (3, 3.2)]  # in TensorBoard's files as well
    assert os.listdir(folder / "samples") == ["step_3.png"]


def test_a_run_in_a_bucket_goes_on_with_its_own_config(bucket, monkeypatch):
    # The package that reaches real buckets need not be there.
    monkeypatch.setattr(paths, "BUCKETS", {"gs": ("fsspec",)})
    config = base_config()
    config.train.seed = 5
    write_config(RUN, config)
    workdir = types.SimpleNamespace(workdir=os.fspath(RUN.path))
    found = COMMANDS["train"].config_without_file(workdir)
    assert to_json(found) == to_json(load_config(os.fspath(RUN.config))) == to_json(config)
    workdir.workdir = "gs://bucket/runs/none"
    with pytest.raises(UserError, match="gs://bucket/runs/none holds no run to go on with"):
        COMMANDS["train"].config_without_file(workdir)


def points(folder) -> list[tuple[int, float]]:
    """The curve "loss" as TensorBoard shows it: a START hides what older files tell from there."""
    found = []
    for event in read_events(folder):
        if event.session_log.status == SessionLog.START:
            found = [point for point in found if point[0] < event.step]
        found += [
            (event.step, pytest.approx(v.simple_value))
            for v in event.summary.value
            if v.tag == "loss"
        ]
    return found


def test_event_files_in_a_bucket_are_bounded_and_none_is_lost(bucket, monkeypatch):
    """A new object begins when one is large; together they hold every point once."""
    monkeypatch.setattr(tensorboard, "LARGEST_OBJECT", 2_000)
    monkeypatch.setattr(reporter, "SECONDS_BETWEEN_UPLOADS", 0)
    with Reporter(RUN, steps_done=0, num_steps=90, batch_size=8) as report:
        for step in range(1, 61):
            report.metrics(step, {"loss": step / 4})
    files = sorted((bucket / "runs" / "one").glob("events.*"))
    assert len(files) > 2 and all(file.stat().st_size < 2_200 for file in files)
    assert points(bucket / "runs" / "one") == [(step, step / 4) for step in range(1, 61)]


def test_lines_wait_for_a_checkpoint_or_for_a_while(bucket, monkeypatch):
    path, now = bucket / "runs" / "one" / "metrics.jsonl", [100.0]
    monkeypatch.setattr(reporter.time, "monotonic", lambda: now[0])

    def told() -> int:
        return path.read_text().count("\n")

    with Reporter(RUN, steps_done=0, num_steps=9, batch_size=8) as report:
        report.metrics(1, {"loss": 1})
        assert told() == 1  # at once, so that its place is seen to be right
        now[0] += reporter.SECONDS_BETWEEN_UPLOADS / 2
        report.metrics(2, {"loss": 2})
        assert told() == 1
        report.flush()  # as before a checkpoint
        assert told() == 2
        now[0] += reporter.SECONDS_BETWEEN_UPLOADS
        report.metrics(3, {"loss": 3})
        assert told() == 3
        now[0] += 1
        report.metrics(4, {"loss": 4})
    assert told() == 4


def test_a_trace_goes_into_a_bucket(bucket):
    with profile._trace(RUN.profile):
        pass
    assert list((bucket / "runs" / "one" / "profile").rglob("*.xplane.pb"))


def test_lines_are_added_to_an_object(bucket):
    for line in ("one", "two"):
        append_line("gs://bucket/lines", line)
    assert (bucket / "lines").read_text() == "one\ntwo\n"


def test_samples_go_into_a_bucket(bucket):
    for name in ("grid.png", "samples/0.png", "samples/1.png"):
        write_png(f"gs://bucket/{name}", np.zeros((4, 4, 3), np.uint8))
        assert (bucket / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(bucket / "samples")) == ["0.png", "1.png"]


def test_buckets_have_no_lock(bucket):
    with RUN.only_writer(), RUN.only_writer():
        pass
