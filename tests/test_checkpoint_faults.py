"""Checkpoints: any damage is noticed, nothing is lost by kills and full disks."""

import json
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ddgan_jax.checkpoint import list_steps, load_ema, load_state, reading
from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.files.run_folder import RunFolder
from tests.checkpoints import (
    CONFIG,
    abstract,
    assert_same_bits,
    files_of,
    in_child,
    make_state,
    open_checkpoints,
    restore,
    save_steps,
)

# ------------------------------------------------------------------------------------- damage


def delete(path, rng):
    path.unlink()


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flip_byte(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "repeats"),
    [(delete, 1), (truncate, 1), (flip_byte, 3)],
    ids=["delete", "cut", "flip"],
)
def test_damage_of_any_file_is_noticed_or_harmless(tmp_path, damage, repeats):
    """Whatever file it hits: the right bits of the newest step, or a line and the step before."""
    rng = random.Random(0)
    saved = save_steps(tmp_path / "saved", 1, 2)
    hurt = set()
    for file in files_of(saved / "2") * repeats:
        name = file.relative_to(saved)
        work = shutil.copytree(saved, tmp_path / "work")
        damage(work / name, rng)
        (step, state), lines = restore(work)
        assert_same_bits(state, make_state(step))
        assert [step, len(lines)] in ([2, 0], [1, 1]), (name, lines)
        if step == 1:
            hurt.add(name.parts[1])
            assert f"skipped the checkpoint of step 2: {work / '2' / name.parts[1]}" in lines[0]
            assert "\n" not in lines[0] and len(lines[0]) < 700
            assert list_steps(work) == [1]
        shutil.rmtree(work)
    assert hurt == {"state", "ema", "config", "manifest"}


@pytest.mark.parametrize("item", ["state", "ema"])
def test_bytes_that_decode_to_other_values_are_noticed(tmp_path, item):
    """What Orbax restores without a word: well-formed files, wrong numbers."""
    save_steps(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "2" / item)
    shutil.copytree(tmp_path / "1" / item, tmp_path / "2" / item)
    (step, _), lines = restore(tmp_path)
    assert step == 1 and f"2/{item}: the array " in lines[0] and "its checksum" in lines[0]


def empty_folder(directory):
    (directory / "3").mkdir()


def interrupted_save(directory):
    shutil.copytree(directory / "2", directory / "3.orbax-checkpoint-tmp")


def foreign_names(directory):
    shutil.copytree(directory / "1", directory / "copy_7")
    (directory / "7.txt").write_text("seven")


@pytest.mark.parametrize(
    ("clutter", "number_of_lines"), [(empty_folder, 1), (interrupted_save, 0), (foreign_names, 0)]
)
def test_clutter_is_no_checkpoint(tmp_path, clutter, number_of_lines):
    save_steps(tmp_path, 1, 2)
    clutter(tmp_path)
    (step, state), lines = restore(tmp_path)
    assert (step, len(lines)) == (2, number_of_lines)
    assert_same_bits(state, make_state(2))
    save_steps(tmp_path, 3)
    assert restore(tmp_path)[0][0] == 3


def test_a_damaged_step_is_set_aside_and_written_anew(tmp_path):
    save_steps(tmp_path, 1)
    for aside in ("2.damaged", "2.damaged1"):
        save_steps(tmp_path, 2)
        (tmp_path / "2" / "config" / "metadata").write_text("{}")
        (step, _), lines = restore(tmp_path)
        assert step == 1 and lines[0].endswith(f"it is now {tmp_path / aside}")
        assert (tmp_path / aside / "config" / "metadata").read_text() == "{}"
    save_steps(tmp_path, 2)
    (step, state), lines = restore(tmp_path)
    assert (step, lines) == (2, [])
    assert_same_bits(state, make_state(2))


def test_an_explicit_damaged_step_is_an_error_that_offers_earlier_ones(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    shutil.rmtree(tmp_path / "3" / "ema")
    offer = r"3/ema cannot be read .*earlier steps: 2, 1$"
    with pytest.raises(UserError, match=offer):
        restore(tmp_path, step=3)
    with pytest.raises(UserError, match=offer):
        load_ema(tmp_path, 3, report=print)
    assert list_steps(tmp_path) == [1, 2, 3]


def test_a_run_never_starts_anew_because_all_checkpoints_are_damaged(tmp_path):
    save_steps(tmp_path, 1, 2)
    for step in (1, 2):
        shutil.rmtree(tmp_path / str(step) / "state")
    with pytest.raises(UserError, match="is whole .*step 2: .*step 1: "):
        restore(tmp_path)
    assert list_steps(tmp_path) == [1, 2]


# --------------------------------------------------------------------- failing writes and kills

OWN_MOUNTS = ("unshare", "--mount", "--map-root-user")


def can_mount():
    probe = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0


def child_fails_to_write(directory, fault):
    """Saves step 1, meets the fault while saving step 2, and prints how that ended."""
    directory = Path(directory)
    if fault != "file size limit":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", directory], check=True)
    with open_checkpoints(directory / "checkpoints", keep_latest=1) as checkpoints:
        checkpoints.save(1, make_state(1), CONFIG)
        checkpoints.wait()
        if fault == "file size limit":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        if fault == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
        try:
            checkpoints.save(2, make_state(2, rows=100_000), CONFIG)
            checkpoints.wait()
        except UserError as error:
            print(error)
        (step, state) = checkpoints.restore(abstract(make_state(1)), report=print)
        assert_same_bits(state, make_state(1))
        print(step, checkpoints.latest_step(), list_steps(directory / "checkpoints"))
        if fault == "full disk":  # space is made: the torn save does not stand in the way
            subprocess.run(["mount", "-o", "remount,size=100m", directory], check=True)
            checkpoints.save(2, make_state(2), CONFIG)
    print(list_steps(directory / "checkpoints"))


@pytest.mark.parametrize(
    ("fault", "reason", "then"),
    [
        ("full disk", "No space left on device", "[2]"),
        ("read-only", "Read-only file system", "[1]"),
        ("file size limit", "File too large", "[1]"),
    ],
)
def test_a_failed_write_is_one_line_and_leaves_the_step_before(tmp_path, fault, reason, then):
    mounts = fault != "file size limit"
    if mounts and not can_mount():
        pytest.skip("this machine does not let us mount a file system of our own")
    prefix = OWN_MOUNTS if mounts else ()
    out, err = in_child(child_fails_to_write, str(tmp_path), fault, prefix=prefix).communicate()
    assert err == ""  # no logs, no tracebacks of background threads
    assert out.splitlines() == [
        f"cannot write the checkpoint of step 2 to {tmp_path}/checkpoints: {reason}; "
        "the checkpoint of step 1 is whole",
        "1 1 [1]",
        then,
    ]


def child_saves_for_ever(directory):
    with open_checkpoints(directory, keep_latest=2) as checkpoints:
        found = checkpoints.restore(abstract(make_state(0, rows=20_000)), report=print)
        step = found[0] if found else 0
        while True:
            step += 1
            checkpoints.save(step, make_state(step, rows=20_000), CONFIG)


def test_kill_at_any_moment_leaves_a_whole_newest_checkpoint(tmp_path):
    rng = random.Random(0)
    newest, torn = 0, 0
    for _ in range(6):
        child = in_child(child_saves_for_ever, str(tmp_path))
        while max(list_steps(tmp_path), default=0) <= newest and child.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        assert child.communicate() == ("", "") and child.returncode == -signal.SIGKILL
        torn += any(path.name.endswith("tmp") for path in tmp_path.iterdir())
        complete = list_steps(tmp_path)
        (step, state), lines = restore(tmp_path, abstract(make_state(0, rows=20_000)))
        assert (step, lines) == (complete[-1], []) and step > newest
        assert_same_bits(state, make_state(step, rows=20_000))
        newest = step
    assert torn  # or the kills have all missed the saves


def test_what_a_killed_save_has_left_goes_when_training_goes_on(tmp_path):
    save_steps(tmp_path, 1)
    torn = tmp_path / "2.orbax-checkpoint-tmp"
    (tmp_path / "1").rename(torn)
    save_steps(tmp_path, 3)
    torn_again = tmp_path / "4.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "3", torn_again)
    # Reading leaves it alone: it may be what somebody is writing.
    assert load_ema(tmp_path, report=print)[0] == 3
    state = load_state(tmp_path, abstract(make_state(0)), 3)
    assert_same_bits(state, make_state(3))
    assert torn_again.exists() and not torn.exists()
    save_steps(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "5"]


def test_a_checkpoint_under_another_number_is_not_believed(tmp_path):
    save_steps(tmp_path, 1, 2)
    shutil.copytree(tmp_path / "2", tmp_path / "7")
    lines = []
    assert load_ema(tmp_path, report=lines.append)[0] == 2
    assert len(lines) == 1 and "7 is the checkpoint of another step" in lines[0]


def test_what_another_process_replaces_meanwhile_is_not_damaged(tmp_path, monkeypatch):
    """Between listing and reading the newest step goes and a newer one appears, several times."""
    save_steps(tmp_path, 1, 2, 3)
    shutil.move(tmp_path / "3", tmp_path.parent / "later")
    read, moves = reading.read_manifest_and_config, iter([("2", "1"), ("1", "3")])

    def replaced(folder):
        for gone, appeared in moves:
            shutil.rmtree(tmp_path / gone)
            if appeared == "3":
                shutil.move(tmp_path.parent / "later", tmp_path / "3")
            break
        return read(folder)

    monkeypatch.setattr(reading, "read_manifest_and_config", replaced)
    lines = []
    step, _, ema = load_ema(tmp_path, report=lines.append)
    assert (step, lines) == (3, [])
    assert_same_bits(ema, make_state(3).generator.ema_params)


def test_nobody_is_told_to_move_a_live_run(tmp_path):
    save_steps(tmp_path / "checkpoints", 1)
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "ema")
    with pytest.raises(UserError, match="to start anew, move it"):
        load_ema(tmp_path / "checkpoints", report=print)
    with RunFolder.at(tmp_path).only_writer(), pytest.raises(BusyError, match="try again"):
        load_ema(tmp_path / "checkpoints", report=print)


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"state": {}, "ema": {}}, {"state": {"a": 1}, "ema": {}, "config": 0}],
)
def test_a_manifest_of_another_form_is_damage(tmp_path, content):
    save_steps(tmp_path, 1, 2)
    manifest = {"content": content, "crc32": reading.checksum(content)}
    (tmp_path / "2" / "manifest" / "metadata").write_text(json.dumps(manifest))
    lines = []
    assert load_ema(tmp_path, report=lines.append)[0] == 1 and len(lines) == 1
