"""What a run promises: a sick state is never kept, logs never block, the caller's process stays."""

import asyncio
import functools
import json
import os
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import checkpoint, distributed
from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError
from ddgan_jax.training.loop import train
from tests.methods import ROOT

SETTINGS = {
    "train.num_steps": 4,
    "train.batch_size": 16,
    "log.every_steps": 2,
    "log.num_samples": 16,
    "sampling.chunk_size": 4,
    "data.max_examples": 100,
    "checkpoint.save_every_steps": 1,
    "checkpoint.keep_latest": 10,
}


def config(**changes):
    """The smallest run there is: points in the plane."""
    c = load_config(f"{ROOT}/configs/mog25.py:ddgan_reduced")
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    c.update_from_flattened_dict(SETTINGS | changes)
    return c


def arrays(workdir, step) -> dict:
    """The checksums of all arrays of a checkpoint."""
    text = (workdir / "checkpoints" / str(step) / "manifest" / "metadata").read_text()
    content = json.loads(text)["content"]
    return content["state"] | content["ema"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train(config(), workdir)
    return workdir


# ------------------------------------------------------------------------------------- health


def poisoned(map_step, place, value, at):
    """Steps whose metrics are those of healthy parameters; the state after step `at` is not."""

    def map_poisoned(*arguments, **options):
        program = map_step(*arguments, **options)

        def step(state, batch, key):
            state, metrics = program(state, batch, key)
            if int(state.step) == at:
                sick = jax.tree.map(lambda x: x * value, getattr(state.generator, place))
                state = state._replace(generator=state.generator._replace(**{place: sick}))
            return state, metrics

        return step

    return map_poisoned


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("params", jnp.nan, "step 3: the parameters are not finite"),
        ("ema_params", 1e30, "step 3: the images drawn from them are not finite"),
    ],
)
def test_a_sick_state_is_never_kept(place, value, message, tmp_path, monkeypatch, finished):
    monkeypatch.setattr(distributed, "map_step", poisoned(distributed.map_step, place, value, at=3))
    with pytest.raises(UserError, match=message):
        train(config(), tmp_path / "run")
    assert checkpoint.list_steps(tmp_path / "run" / "checkpoints") == [1, 2]
    for step in (1, 2):  # the healthy ones before it are whole
        assert arrays(tmp_path / "run", step) == arrays(finished, step)
    monkeypatch.undo()
    train(config(), tmp_path / "run")  # and the run goes on from there
    assert arrays(tmp_path / "run", 4) == arrays(finished, 4)


def test_a_learning_rate_that_explodes_keeps_nothing(tmp_path):
    rates = {f"optimizer__{n}_learning_rate": 1e6 for n in ("generator", "discriminator")}
    with pytest.raises(UserError, match="is nan|not finite"):
        train(config(train__num_steps=20, **rates), tmp_path)
    for step in checkpoint.list_steps(tmp_path / "checkpoints"):
        params = checkpoint.load_ema(tmp_path / "checkpoints", step, report=pytest.fail)[2]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


# --------------------------------------------------------------------------------------- logs

GARBAGE = [b"\xff\xfe", b"[" * 10_000, b"\0" * 100, b'{"step": "x"}', b'{"step": 1', b"null"]


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The same run, stopped half way."""
    workdir = tmp_path_factory.mktemp("half") / "run"
    train(config(train__num_steps=2), workdir)
    return workdir


@pytest.mark.parametrize("name", ["metrics.jsonl", "machine.jsonl", "config.json"])
def test_damaged_logs_do_not_block_a_resume(name, tmp_path, half, finished, capsys):
    """The run ends with the bits of the undisturbed one; what was skipped is named once."""
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    garbage = b"\n".join(GARBAGE)
    (workdir / name).write_bytes(garbage + b"\n" + (workdir / name).read_bytes() + garbage)
    train(config(), workdir)
    told = [line for line in capsys.readouterr().err.splitlines() if name in line]
    assert len(told) == 1, told
    assert arrays(workdir, 4) == arrays(finished, 4)
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4]  # a save is always told


def test_a_changed_data_set_is_named(tmp_path, half, finished):
    tmp_path = tmp_path / "run"
    shutil.copytree(half, tmp_path)
    log = tmp_path / "machine.jsonl"
    line = json.loads(log.read_text())
    log.write_text(json.dumps(line | {"data": "of other images"}) + "\n")
    with pytest.raises(UserError, match="the data set is not what it was"):
        train(config(), tmp_path)
    train(config(), tmp_path, allow_changed_data=True)
    assert json.loads(log.read_text().splitlines()[-1])["data"] == line["data"]
    assert arrays(tmp_path, 4) == arrays(finished, 4)


# -------------------------------------------------------------------------- the caller's process


def state_of_the_process() -> list:
    handlers = [signal.getsignal(number) for number in range(1, 30) if number not in (9, 19)]
    switches = (jax.config.jax_enable_x64, jax.config.jax_threefry_partitionable)
    return [handlers, dict(os.environ), os.getcwd(), switches]


def test_training_changes_nothing_of_its_caller(tmp_path, finished):
    """In a thread, and within a running event loop as in a notebook: the same bits."""
    before = state_of_the_process()
    thread = threading.Thread(target=train, args=(config(), tmp_path / "thread"))
    thread.start()
    thread.join()

    async def notebook() -> None:
        train(config(), tmp_path / "loop")

    asyncio.run(notebook())
    assert state_of_the_process() == before
    for name in ("thread", "loop"):
        assert arrays(tmp_path / name, 4) == arrays(finished, 4)


def test_a_refused_run_leaves_no_folder(tmp_path, finished):
    refused = [
        functools.partial(train, config(train__batch_size=-1), tmp_path / "a"),
        functools.partial(train, config(data__name="nosuchset"), tmp_path / "b"),
        functools.partial(train, config(), tmp_path / "c[1]"),
        functools.partial(train, config(), "http://host/run"),
    ]
    for attempt in refused:
        with pytest.raises(UserError):
            attempt()
    assert list(tmp_path.iterdir()) == []
