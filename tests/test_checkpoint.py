"""Checkpoints: the same bits back, any damage noticed, nothing lost by kills and full disks."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddgan_jax.checkpoint import Checkpoints, list_steps, load_ema, load_state
from ddgan_jax.errors import UserError
from ddgan_jax.types import DiscriminatorState, GeneratorState, TrainState

CONFIG = {"data": {"name": "digits", "sizes": (8, 16)}, "train": {"rate": 1.6e-4}}
CONFIG_READ = {"data": {"name": "digits", "sizes": [8, 16]}, "train": {"rate": 1.6e-4}}


# ------------------------------------------------------------------------------------ helpers


def make_state(step, width=8, rows=40):
    """A train state on the default device, all of whose arrays are a function of the step."""
    rng = np.random.default_rng(step)

    def noise(like):
        return rng.standard_normal(like.shape).astype(like.dtype) if like.ndim else like + step

    like = {"conv": {"kernel": np.zeros((rows, width), "f4"), "bias": np.zeros(width, "f4")}}
    state = TrainState(
        step=np.zeros((), np.int32),
        generator=GeneratorState(like, like, optax.adam(1e-3).init(like)),
        discriminator=DiscriminatorState(like, optax.adam(1e-3).init(like)),
    )
    return jax.tree.map(lambda leaf: jnp.asarray(noise(leaf)), state)


def abstract(state, sharding=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def open_checkpoints(directory, keep_latest=3, keep_every_steps=0):
    return Checkpoints(directory, keep_latest=keep_latest, keep_every_steps=keep_every_steps)


def save_steps(directory, *steps, **options):
    with open_checkpoints(directory, **options) as checkpoints:
        for step in steps:
            assert checkpoints.save(step, make_state(step), CONFIG)
    return directory


def restore(directory, like=None, step=None):
    """What Checkpoints.restore returns, and the lines it reported."""
    lines = []
    like = abstract(make_state(0)) if like is None else like
    with open_checkpoints(directory) as checkpoints:
        return checkpoints.restore(like, step, report=lines.append), lines


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def in_child(call, *, devices=1, prefix=(), **popen):
    """Starts `call`, an expression over the names of this module, in a Python of its own."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [*prefix, sys.executable, "-c", f"from tests.test_checkpoint import *; {call}"]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen
    )


# -------------------------------------------------------------------------------- round trips


def test_restored_state_has_the_same_bits_and_types(tmp_path):
    special = np.array([np.nan, -0.0, np.inf, 1e-45, -np.nan], np.float32)
    params = {"special": jnp.asarray(special), "half": jnp.arange(5, dtype=jnp.bfloat16)}
    params["scalar"] = jnp.float32(0.1)
    state = make_state(7)
    state = state._replace(generator=state.generator._replace(ema_params=params))
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state, CONFIG)
    (step, restored), lines = restore(tmp_path, abstract(state))
    assert (step, lines) == (7, [])
    assert_same_bits(restored, state)
    assert restored.step.dtype == jnp.int32


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


def halve(state):
    """All parameters halved, in place."""
    halved = jax.jit(lambda s: jax.tree.map(lambda x: (x / 2).astype(x.dtype), s), donate_argnums=0)
    return jax.block_until_ready(halved(state))


def test_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    state = make_state(1, rows=20_000)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, CONFIG)
        halve(state)
        assert state.generator.params["conv"]["kernel"].is_deleted()
    (_, restored), _ = restore(tmp_path, abstract(make_state(1, rows=20_000)))
    assert_same_bits(restored, make_state(1, rows=20_000))


def child_continues(directory):
    """Restores replicated over all devices, halves in place, saves as the step after."""
    devices = jax.devices()
    everywhere = NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec())
    with open_checkpoints(directory) as checkpoints:
        step, state = checkpoints.restore(abstract(make_state(0), everywhere), report=print)
        assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(state))
        state = halve(state)
        for leaf in jax.tree.leaves(state):
            copies = {np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards}
            assert len(leaf.addressable_shards) == len(devices) and len(copies) == 1
        checkpoints.save(step + 1, state, CONFIG)


def test_checkpoints_move_between_numbers_of_devices(tmp_path):
    save_steps(tmp_path, 1)
    child = in_child(f"child_continues({str(tmp_path)!r})", devices=4)
    assert child.communicate() == ("", "")
    (step, restored), lines = restore(tmp_path)
    assert (step, lines) == (2, [])
    assert_same_bits(restored, halve(make_state(1)))
    assert_same_bits(load_ema(tmp_path, report=print)[2], restored.generator.ema_params)


def test_restored_arrays_may_be_donated(tmp_path):
    save_steps(tmp_path, 1)
    (_, state), _ = restore(tmp_path)
    assert_same_bits(halve(halve(state)), halve(halve(make_state(1))))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"keep_latest": 1}, [50]),
        ({"keep_latest": 2}, [40, 50]),
        ({"keep_latest": 0}, [50]),  # never fewer than one
        ({"keep_latest": 1, "keep_every_steps": 20}, [20, 40, 50]),
        ({"keep_latest": 9}, [10, 20, 30, 40, 50]),
    ],
)
def test_which_steps_stay(tmp_path, options, kept):
    save_steps(tmp_path, 10, 20, 30, 40, 50, **options)
    assert list_steps(tmp_path) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, kept))
    assert restore(tmp_path)[0][0] == 50


def test_a_step_is_never_overwritten_nor_a_newer_one_displaced(tmp_path):
    save_steps(tmp_path, 2, 4)
    with open_checkpoints(tmp_path) as checkpoints:
        assert not checkpoints.save(4, make_state(99), CONFIG)
        assert not checkpoints.save(2, make_state(99), CONFIG)
        with pytest.raises(UserError, match=f"{tmp_path}/4 is newer than step 3"):
            checkpoints.save(3, make_state(3), CONFIG)
    assert list_steps(tmp_path) == [2, 4]
    assert_same_bits(restore(tmp_path)[0][1], make_state(4))


def test_no_checkpoint_is_a_new_run(tmp_path):
    assert list_steps(tmp_path / "missing") == []
    assert restore(tmp_path / "missing") == (None, [])
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
    with pytest.raises(UserError, match="train first"):
        load_ema(tmp_path, report=print)


def test_the_folder_may_be_relative_and_must_be_possible(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_steps("runs/a/checkpoints", 1)
    assert load_ema("runs/a/checkpoints", report=print)[0] == restore("runs/a/checkpoints")[0][0]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make .*file/checkpoints: Not a directory"):
        open_checkpoints("file/checkpoints")


def test_an_explicit_step_is_restored_though_newer_ones_exist(tmp_path):
    save_steps(tmp_path, 1, 2)
    (step, state), lines = restore(tmp_path, step=1)
    assert (step, lines) == (1, [])
    assert_same_bits(state, make_state(1))
    with pytest.raises(UserError, match=r"no checkpoint of step 3 in .*: \[1, 2\]"):
        restore(tmp_path, step=3)


# ------------------------------------------------------------------------- parameters for samples


def test_load_ema_needs_no_optimiser_and_changes_nothing(tmp_path):
    save_steps(tmp_path, 1, 2)
    for step in (1, 2):
        shutil.rmtree(tmp_path / str(step) / "state")
    before = {path: path.read_bytes() for path in files_of(tmp_path)}
    for asked, expected in ((None, 2), (1, 1)):
        step, config, ema = load_ema(tmp_path, asked, report=print)
        assert (step, config) == (expected, CONFIG_READ)
        assert_same_bits(ema, make_state(expected).generator.ema_params)
        assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(ema))
    assert {path: path.read_bytes() for path in files_of(tmp_path)} == before


@pytest.mark.parametrize("item", ["ema", "config", "manifest"])
def test_load_ema_skips_a_damaged_step_with_a_line(tmp_path, item):
    save_steps(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "2" / item)
    lines = []
    step, _, ema = load_ema(tmp_path, report=lines.append)
    assert step == 1
    assert_same_bits(ema, make_state(1).generator.ema_params)
    assert len(lines) == 1 and f"2/{item} cannot be read" in lines[0]
    assert list_steps(tmp_path) == [1, 2]


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
    offer = r"3/ema cannot be read .*--step=2, --step=1$"
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


def without_bias(state):
    params = {"conv": {"kernel": state.generator.params["conv"]["kernel"]}}
    return state._replace(generator=state.generator._replace(params=params))


def in_bfloat16(state):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim == 2 else x, state)


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        (make_state(1), make_state(1, width=9), r"kernel is float32 \(40, 8\) .*float32 \(40, 9\)"),
        (
            make_state(1),
            in_bfloat16(make_state(1)),
            r"float32 \(40, 8\) there and bfloat16 \(40, 8",
        ),
        (
            make_state(1),
            without_bias(make_state(1)),
            r"conv/bias is float32 \(8,\) there and absent",
        ),
        (
            without_bias(make_state(1)),
            make_state(1),
            r"conv/bias is absent there and float32 \(8,\)",
        ),
    ],
    ids=["shape", "dtype", "too many", "too few"],
)
def test_a_checkpoint_of_other_networks_is_refused_by_name(tmp_path, saved, wanted, message):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved, CONFIG)
    with pytest.raises(UserError, match=message):
        restore(tmp_path, abstract(wanted))
    assert list_steps(tmp_path) == [1]  # it is whole: nothing to set aside


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
    call = f"child_fails_to_write({str(tmp_path)!r}, {fault!r})"
    out, err = in_child(call, prefix=OWN_MOUNTS if mounts else ()).communicate()
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
        child = in_child(f"child_saves_for_ever({str(tmp_path)!r})")
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
