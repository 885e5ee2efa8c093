"""Run folders in object storage: a local folder stands in for the bucket behind gs://."""

import json
import os
import types

import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from ddgan_jax.cli.training import COMMANDS
from ddgan_jax.config import base_config
from ddgan_jax.config.files import from_json, load_config, to_json
from ddgan_jax.config.run_config import check_same_run, write_config
from ddgan_jax.errors import UserError
from ddgan_jax.files import paths
from ddgan_jax.files.atomic import append_line
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.images import write_png
from ddgan_jax.training.reporter import Reporter

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
    assert sorted(os.listdir(folder)) == ["config.json", "metrics.jsonl", "samples"]
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
