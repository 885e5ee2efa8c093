"""Checkpoints: the same bits back, on any devices; which steps stay; whose they are."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddgan_jax.checkpoint import list_steps, load_ema
from ddgan_jax.errors import UserError
from tests.checkpoints import (
    CONFIG,
    CONFIG_READ,
    abstract,
    assert_same_bits,
    files_of,
    in_child,
    make_state,
    open_checkpoints,
    restore,
    save_steps,
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
        following = jax.device_put(np.int32(step + 1), everywhere)
        checkpoints.save(step + 1, state._replace(step=following), CONFIG)


def test_checkpoints_move_between_numbers_of_devices(tmp_path):
    save_steps(tmp_path, 1)
    child = in_child(child_continues, str(tmp_path), devices=4)
    assert child.communicate() == ("", "")
    (step, restored), lines = restore(tmp_path)
    assert (step, lines) == (2, [])
    assert_same_bits(restored, halve(make_state(1))._replace(step=np.int32(2)))
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


# ---------------------------------------------------------------------------- of other networks


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
