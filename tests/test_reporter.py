"""Reports: one line per step in every file whatever happened, runs kept apart, time left."""

import io
import json
import math
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ddgan_jax.config import base_config, run_config
from ddgan_jax.config.defaults import MAY_CHANGE
from ddgan_jax.errors import UserError
from ddgan_jax.files.atomic import replacing, write_atomically
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.training.health import check_metrics
from ddgan_jax.training.reporter import Reporter


def check_same_run(run, config):
    run_config.check_same_run(RunFolder.at(run), config, report=print)


def write_config(run, config):
    run_config.write_config(RunFolder.at(run), config)


def open_reporter(run_dir, steps_done=0, num_steps=1000, batch_size=10, **options):
    return Reporter(
        RunFolder.at(run_dir),
        steps_done=steps_done,
        num_steps=num_steps,
        batch_size=batch_size,
        **options,
    )


def read_lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def read_events(run_dir):
    """All events, in the order in which TensorBoard reads them: by file name, then as written."""
    events = []
    for path in sorted(run_dir.glob("events.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            events.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return events


# -------------------------------------------------------------------------- config of the run


def example_config(**changes):
    config = base_config()
    config.data.name = "digits"
    for name, value in changes.items():
        config[name] = value
    return config


def test_config_of_a_new_run_is_written_and_the_same_config_goes_on(tmp_path):
    run = tmp_path / "runs" / "a"
    check_same_run(run, example_config())
    write_config(run, example_config())
    check_same_run(run, example_config())
    stored = json.loads((run / "config.json").read_text())
    assert stored["data"]["name"] == "digits"
    assert stored["generator"]["channel_multipliers"] == [1, 2, 2, 2]
    assert [p.name for p in run.iterdir()] == ["config.json"]


def set_field(config, name, value):
    config.update_from_flattened_dict({name: value})
    return config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train.num_steps", 7),
        ("log.every_steps", 7),
        ("checkpoint.keep_latest", 7),
        ("sampling.chunk_size", 7),
        ("data.dir", "/elsewhere"),
        ("data.memory_limit_mib", 7),
        ("data.decode_threads", 7),
    ],
)
def test_fields_that_may_change_when_a_run_goes_on(tmp_path, name, value):
    assert any(name.startswith(field) for field in MAY_CHANGE)
    write_config(tmp_path, example_config())
    changed = set_field(example_config(), name, value)
    check_same_run(tmp_path, changed)
    write_config(tmp_path, changed)  # the file tells what the run does now
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(changed.to_json())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train.batch_size", 128, "train.batch_size: 256 in the run folder, 128 now"),
        ("data.name", "cifar10", "data.name: 'digits' in the run folder, 'cifar10' now"),
        ("data.path", "/x", "data.path: '' in the run folder, '/x' now"),
        ("train.seed", 1, "train.seed: 0 in the run folder, 1 now"),
        (
            "generator.channel_multipliers",
            (1, 2),
            "generator.channel_multipliers: (1, 2, 2, 2) in the run folder, (1, 2) now",
        ),
    ],
)
def test_another_config_is_refused_by_field_and_changes_nothing(tmp_path, name, value, message):
    write_config(tmp_path, example_config())
    before = (tmp_path / "config.json").read_text()
    changed = set_field(set_field(example_config(), name, value), "train.num_steps", 7)
    for refuse in (check_same_run, write_config):
        with pytest.raises(UserError) as caught:
            refuse(tmp_path, changed)
        assert f"({message})" in str(caught.value)  # this field, and no other
    assert (tmp_path / "config.json").read_text() == before


def test_all_differing_fields_are_listed(tmp_path):
    write_config(tmp_path, example_config())
    changed = set_field(set_field(example_config(), "train.seed", 1), "train.batch_size", 1)
    with pytest.raises(
        UserError, match=r"train.batch_size: 256 .*, 1 now; train.seed: 0 .*, 1 now"
    ):
        check_same_run(tmp_path, changed)


def test_a_field_newer_than_the_run_counts_as_its_default(tmp_path):
    write_config(tmp_path, example_config())
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["generator"]["fir"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    check_same_run(tmp_path, example_config())
    with pytest.raises(UserError, match="generator.fir: True in the run folder, False now"):
        check_same_run(tmp_path, set_field(example_config(), "generator.fir", False))


def test_a_broken_config_file_is_named_and_kept(tmp_path):
    (tmp_path / "config.json").write_text('{"data": ')
    with pytest.raises(UserError, match="config.json: this is not a config in JSON"):
        write_config(tmp_path, example_config())
    assert (tmp_path / "config.json").read_text() == '{"data": '


# --------------------------------------------------------------------------- metrics in files


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_stops_the_run_by_name(bad):
    fine = {"d_loss": 0.5, "g_loss": -3.0}
    check_metrics({101: fine, 102: fine})
    with pytest.raises(UserError) as caught:
        check_metrics({101: fine, 102: fine | {"g_loss": bad, "r1": 0.0}, 103: {"d_loss": bad}})
    assert str(caught.value).startswith(f"step 102: g_loss is {bad:g}; ")
    assert "untouched" in str(caught.value)


def test_metrics_read_back_from_both_kinds_of_files(tmp_path):
    grid = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with open_reporter(tmp_path) as reporter:
        reporter.metrics(100, {"d_loss": np.float32(0.25), "g_loss": 3})
        reporter.metrics(200, {"d_loss": 0.125})
        reporter.samples(200, grid)
    first, second = read_lines(tmp_path)
    assert first.items() >= {"step": 100, "d_loss": 0.25, "g_loss": 3.0}.items()
    assert second.items() >= {"step": 200, "d_loss": 0.125}.items()
    assert first["time"] <= second["time"] and second["images_per_second"] > 0

    values = [
        (event.step, value) for event in read_events(tmp_path) for value in event.summary.value
    ]
    curves = [(step, value.tag, value.simple_value) for step, value in values]
    assert curves[:2] == [(100, "d_loss", 0.25), (100, "loss/g_loss", 3.0)]
    assert curves[2] == (200, "d_loss", 0.125)
    step, picture = values[-1]
    assert (step, picture.tag) == (200, "samples")
    for file in (
        tmp_path / "samples" / "step_200.png",
        io.BytesIO(picture.image.encoded_image_string),
    ):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), grid)


def test_metrics_are_in_the_files_before_the_run_ends(tmp_path):
    reporter = open_reporter(tmp_path)
    reporter.metrics(100, {"d_loss": 0.5})
    assert read_lines(tmp_path)[0]["d_loss"] == 0.5  # a kill -9 now would lose nothing
    assert read_events(tmp_path)[-1].summary.value[0].simple_value == 0.5
    reporter.close()


@pytest.mark.parametrize("torn", ["", '{"step": 400, "d_lo', "\n\n"])
def test_a_resumed_run_has_each_step_once(tmp_path, torn):
    with open_reporter(tmp_path) as reporter:
        for step in (100, 200, 300):
            reporter.metrics(step, {"d_loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    with open_reporter(tmp_path, steps_done=200) as reporter:
        for step in (300, 400):
            reporter.metrics(step, {"d_loss": -step})
    assert [(line["step"], line["d_loss"]) for line in read_lines(tmp_path)] == [
        (100, 100), (200, 200), (300, -300), (400, -400)
    ]  # fmt: skip

    # TensorBoard hides what comes before a START of the same or a smaller step.
    points = []
    for event in read_events(tmp_path):
        if event.session_log.status == SessionLog.START:
            points = [point for point in points if point[0] < event.step]
        points += [(event.step, v.simple_value) for v in event.summary.value if v.tag == "d_loss"]
    assert points == [(100, 100), (200, 200), (300, -300), (400, -400)]


def test_a_run_that_starts_anew_forgets_the_lines_of_one_without_checkpoint(tmp_path):
    with open_reporter(tmp_path) as reporter:
        reporter.metrics(100, {"d_loss": 1})
    open_reporter(tmp_path).close()
    assert read_lines(tmp_path) == []


def test_event_files_need_no_tensorflow_and_leave_the_modules_of_others_alone(tmp_path):
    program = """
import sys
import time
from ddgan_jax.training.event_files import EventFile
events = EventFile(sys.argv[1], 1)
events.write_scalars(5, {"loss": 0.5})
events.flush()
print(sorted(name for name in sys.modules if name.split(".")[0] in ("tensorflow", "clu")))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert read_events(tmp_path)[-1].summary.value[0].simple_value == 0.5


# --------------------------------------------------------------------------- failing writes


def test_an_atomic_write_that_fails_keeps_the_file(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, b"old")
    with (
        pytest.raises(UserError, match="cannot write .*a: the disk is full"),
        replacing(path) as new,
    ):
        new.write_bytes(b"half")
        raise OSError("the disk is full")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_is_an_error_of_one_line(tmp_path):
    reporter = open_reporter(tmp_path)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: No space left on device"):
        reporter.metrics(100, {"d_loss": 1.0})
    reporter.close()


def test_a_disk_that_is_full_for_event_files_neither_hangs_nor_is_silent(tmp_path, monkeypatch):
    """Small events fail at the flush, large ones as they are written; closing fails as well."""

    def open_full(path):
        return open("/dev/full", "wb")  # noqa: SIM115  the writer closes it

    monkeypatch.setattr(record_writer, "open_file", open_full)
    message = f"cannot write {tmp_path}: No space left on device"
    reporter = open_reporter(tmp_path)
    with pytest.raises(UserError, match=message):
        reporter.metrics(100, {"d_loss": 1.0})
    assert read_lines(tmp_path)[0]["d_loss"] == 1.0
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    with pytest.raises(UserError, match=message):
        reporter.samples(100, noise)
    with pytest.raises(UserError, match=message):
        reporter.close()


def test_a_run_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file/run: Not a directory"):
        open_reporter(tmp_path / "file" / "run")


# ------------------------------------------------------------------------------------ progress


def fake_clock(monkeypatch, *times):
    remaining = iter(times)
    monkeypatch.setattr(time, "monotonic", lambda: next(remaining))


def test_plain_lines_where_stdout_is_no_terminal(tmp_path, capsys, monkeypatch):
    fake_clock(monkeypatch, 0.0, 10.0)
    with open_reporter(tmp_path, num_steps=6000, batch_size=256) as reporter:
        for step in range(1, 301):
            reporter.step(step)
            if step % 150 == 0:
                reporter.metrics(step, {"d_loss": 0.68123, "rate": 1.6e-4})
        reporter.message("saved")
    assert capsys.readouterr() == (
        "step 150/6000  d_loss 0.681  rate 0.00016\n"
        "step 300/6000  d_loss 0.681  rate 0.00016  3,840 images/s  6 min left\n"
        "saved\n",
        "",
    )


def test_a_process_that_is_not_active_writes_and_prints_nothing(tmp_path, capsys):
    with open_reporter(tmp_path, active=False) as reporter:
        reporter.step(100)
        reporter.metrics(100, {"d_loss": 0.5})
        reporter.samples(100, np.zeros((8, 8, 3), np.uint8))
        reporter.message("hello")
    assert os.listdir(tmp_path) == [] and capsys.readouterr() == ("", "")
