"""Run folders and data sets in object storage: a local folder stands in for the bucket."""

import http.server
import json
import os
import re
import threading
import types
import urllib.parse

import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from tensorboardX.proto.event_pb2 import SessionLog

from ddgan_jax import cli
from ddgan_jax.cli.training import COMMANDS
from ddgan_jax.config import base_config
from ddgan_jax.config.files import from_json, load_config, to_json
from ddgan_jax.config.run_config import check_same_run, write_config
from ddgan_jax.data import builders, fingerprint, open_dataset
from ddgan_jax.data.prepare.prepare import prepare
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


def test_a_report_lies_beside_its_run_and_is_replaced(bucket, monkeypatch, capsys):
    monkeypatch.setattr(paths, "BUCKETS", {"gs": ("fsspec",)})
    write_config(RUN, base_config())
    for _ in range(2):
        assert cli.main(["report", f"--workdir={RUN.path}"]) == 0
    page = bucket / "runs" / "one" / "report.html"
    assert page.read_text().startswith("<!doctype html>")
    page.write_text("mine")
    assert cli.main(["report", f"--workdir={RUN.path}"]) == 2
    assert page.read_text() == "mine" and "replace it with --force" in capsys.readouterr().err


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


class Objects(http.server.BaseHTTPRequestHandler):
    """Answers requests for (parts of) objects as Google's storage does, from a local folder.

    ArrayRecord's reader has a client of its own, which knows nothing of the file systems above.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        bucket, name = re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)", path).groups()
        file = self.server.root / bucket / name
        if not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()
        first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers["Range"]).groups()
        start = int(first) if first else len(content) - int(last)
        part = content[start : int(last) + 1 if first and last else len(content)]
        self.send_response(206)
        end = start + len(part) - 1
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def objects(bucket, monkeypatch):
    """The folder of gs://bucket, which is also served over HTTP; gcsfs need not be there."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Objects) as server:
        server.root = bucket.parent
        # The reader breaks off what it has asked for too much of.
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv(
            "CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{server.server_port}"
        )
        monkeypatch.setitem(paths.BUCKETS, "gs", ("fsspec",))
        yield bucket
        server.shutdown()
        thread.join()


def test_a_data_set_in_a_bucket_is_the_same_set(objects):
    local = builders.write_digits(objects / "sets").parents[1]

    def opened(where, **fields):
        config = base_config()
        config.data.update(dir=str(where), name="digits", image_size=8, channels=1, max_examples=9)
        config.data.update(fields)
        return open_dataset(config)

    for limit in (0, 4096):  # read when asked for, and at once
        there = opened("gs://bucket/sets", memory_limit_mib=limit)
        here = opened(local, memory_limit_mib=limit)
        assert there.info == here.info and fingerprint(there) == fingerprint(here)
        for found, expected in zip(
            *(d.read(np.array([8, 3, 3])) for d in (there, here)), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(dir="gs://bucket/sets", name="mine"), "neither prepared in gs://bucket/sets nor"),
        (
            dict(dir="gs://bucket/sets", name="folder", path="/x"),
            "sets are written to local folders",
        ),
        (dict(dir="s3://bucket/sets", name="digits"), "from gs://: copy or mount s3://bucket/sets"),
    ],
)
def test_what_a_bucket_cannot_do_is_said_in_one_line(objects, fields, message):
    config = base_config()
    config.data.update(fields)
    with pytest.raises(UserError, match=message):
        open_dataset(config)
    with pytest.raises(UserError, match="written to local folders|copy or mount"):
        prepare("digits", data_dir=config.data.dir)


def test_buckets_have_no_lock(bucket):
    with RUN.only_writer(), RUN.only_writer():
        pass
