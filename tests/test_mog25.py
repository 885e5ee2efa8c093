"""The 25-Gaussian table: its cells, several seeds at once, and a table that is added to."""

import functools
import json
import math

import jax
import msgspec
import numpy as np
import pytest
from PIL import Image

from ddgan_jax import build
from ddgan_jax.data import mixture
from ddgan_jax.errors import UserError
from ddgan_jax.experiments import mog25, mog25_table
from ddgan_jax.experiments.mog25_cells import METHODS, PAPER, SETTINGS, cell_config
from ddgan_jax.training import loop
from tests import made_up_results

# ---- cells


@pytest.mark.quick
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", METHODS)
def test_every_cell_is_a_config(method, setting):
    """A plain GAN has one step from pure noise; the others differ in their objective alone."""
    config = cell_config(method, 1 if method == "gan" else 4, setting)
    o = config.objective
    assert o.joint == (method == "ddgan")
    assert (o.afd_weight > 0) == (method.startswith("siddm") and method != "siddm_no_afd")
    if method == "gan":
        assert (config.diffusion.schedule, config.diffusion.num_timesteps) == ("one_shot", 1)
        return
    reference = cell_config("siddm", 4, setting)
    for section in ("data", "diffusion", "generator", "discriminator", "optimizer", "train"):
        assert config[section].to_dict() == reference[section].to_dict()


@pytest.mark.quick
def test_numbers_of_the_paper():
    """Each of a method and a number of steps that can be trained."""
    for method, distances in PAPER.items():
        for num_timesteps, distance in distances.items():
            assert cell_config(method, num_timesteps).diffusion.num_timesteps == num_timesteps
            assert distance > 0


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("siddmm", 4), "'siddmm' is not one of gan, ddgan, siddm"),
        (("siddm", 4, "small"), "'small' is not one of paper, reduced"),
        (("gan", 4), "diffusion.schedule='one_shot'.*needs diffusion.num_timesteps=1"),
    ],
)
def test_cells_that_there_are_not(arguments, message):
    with pytest.raises(UserError, match=message):
        cell_config(*arguments)


# ---- training


def small_cell(method="siddm", num_timesteps=2, setting="reduced", **train_fields):
    """A cell whose networks and batches are small."""
    config = cell_config(method, num_timesteps, setting)
    for network in (config.generator, config.discriminator):
        network.width, network.hidden_layers, network.time_embedding_dim = 16, 1, 8
    config.train.batch_size, config.train.num_steps = 64, 4
    config.train.update(train_fields)
    return config


@pytest.fixture(scope="module")
def trained():
    """The parameters of two seeds after four steps, in calls of three and of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mog25, "STEPS_PER_CALL", 3)
        return mog25.train_seeds(small_cell(), [5, 3])[0]


def test_seeds_that_train_together_are_ordinary_runs(tmp_path, trained):
    """`ddgan train` with the cell's config and the second seed gets the second parameters.

    Not the same bits, since there the batch is split over devices, and here the matrix products of
    two seeds are one; their errors pass through four updates of Adam of 1e-3 each.
    """
    state = loop.train(small_cell(seed=3), tmp_path)
    ema = jax.tree.leaves(state.generator.ema_params)
    for both, expected in zip(jax.tree.leaves(trained), ema, strict=True):
        np.testing.assert_allclose(both[1], expected, rtol=0, atol=1e-6)
        assert not np.allclose(both[0], expected, rtol=0, atol=1e-3)


def test_seeds_that_diverge_are_counted(monkeypatch):
    """NaN, or farther from the data than a point at their mean; the means leave these seeds out."""
    real = mixture.points()[0]
    monkeypatch.setattr(mog25, "NUM_MODE_SAMPLES", 500)
    mean = np.repeat(real.mean(0, keepdims=True), 2_000, axis=0)
    good, far = real[::125], 3 * real[::125]
    lost = good.copy()
    lost[7, 1] = np.nan
    samples = np.stack([good, lost, far, mean * (1 - 1e-9)])
    cell = mog25.measure(small_cell(), samples, "siddm", "reduced", [0, 1, 2, 3], 1.0)
    assert cell.diverged() == [False, True, True, False]
    # The distance of a point is the variance, a closed form.
    np.testing.assert_allclose(cell.frechet[3], mog25_table.distance_of_mean(), rtol=1e-6)
    assert cell.frechet[1] is None and cell.modes_any[1] is None
    row = mog25_table.table([cell]).splitlines()[2]
    assert " 2 of 4 " in row
    assert f"{np.mean([cell.modes_any[0], cell.modes_any[3]]):.1f} +- " in row


# ---- the table


def test_a_table_is_added_to(tmp_path, trained, monkeypatch, capsys):
    """A cell that is there is not trained again; another method, seed or length is another cell."""
    trainings = []

    def train_seeds(config, seeds, title):
        """In the place of training: what was trained already."""
        trainings.append((title, list(seeds), config.train.num_steps))
        return jax.tree.map(lambda x: x[: len(seeds)], trained), 2.0

    for name, value in {
        "NUM_SAMPLES": 900,
        "NUM_MODE_SAMPLES": 800,
        "CHUNK": 500,
        "cell_config": small_cell,
        "train_seeds": train_seeds,
    }.items():
        monkeypatch.setattr(mog25, name, value)
    run = functools.partial(mog25.run, tmp_path, steps=[2], setting="reduced")

    run(methods=["siddm"], seeds=[5, 3])
    expected = [("siddm, T = 2", [5, 3], 4)]
    assert trainings == expected
    table = (tmp_path / "table.md").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cells.json", "siddm_2_reduced.png", "table.md"
    ]  # fmt: skip
    assert Image.open(tmp_path / "siddm_2_reduced.png").size == (512, 512)
    [cell] = json.loads((tmp_path / "cells.json").read_text())
    assert (cell["seeds"], cell["iterations"], cell["batch_size"]) == ([5, 3], 4, 64)
    assert cell["iterations_per_second"] == 2.0
    assert len(cell["frechet"]) == len(cell["kl_to_uniform"]) == 2

    capsys.readouterr()
    run(methods=["siddm"], seeds=[5, 3])
    assert trainings == expected
    assert capsys.readouterr().out == f"siddm, T = 2: already in {tmp_path}\n{table}\n"

    run(methods=["siddm", "ddgan"], seeds=[5])
    run(methods=["siddm"], seeds=[5, 3], iterations=9)
    expected += [("siddm, T = 2", [5], 4), ("ddgan, T = 2", [5], 4), ("siddm, T = 2", [5, 3], 9)]
    assert trainings == expected
    cells = json.loads((tmp_path / "cells.json").read_text())
    assert [(f"{c['method']}, T = 2", c["seeds"], c["iterations"]) for c in cells] == expected
    assert cells[0] == cell
    assert (tmp_path / "table.md").read_text().startswith(table)


def test_samples_come_back_in_the_coordinates_of_the_paper(trained, monkeypatch):
    """As many as asked for, of each seed its own; the first ones of a larger number."""
    monkeypatch.setattr(mog25, "CHUNK", 500)
    config = small_cell()
    samples, fewer = (mog25.draw_points(config, trained, count) for count in (900, 10))
    assert samples.shape == (2, 900, 2) and samples.dtype == np.float64
    np.testing.assert_array_equal(samples[:, :10], fewer)
    assert not np.allclose(samples[0], samples[1])
    inputs = (np.arange(10, dtype=np.uint32), np.zeros(10, np.int32))
    alone = jax.tree.map(lambda x: x[1], trained)
    stored = jax.jit(build.sampler(config))(alone, *inputs).x_t[-1]
    offset, scale = mixture.SETS[config.data.name]
    expected = np.asarray(stored)[:, 0, 0] * scale + offset
    np.testing.assert_allclose(fewer[1], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.quick
def test_numbers_of_the_data_itself():
    """The points themselves as samples, in another order: distance 0, all modes, their spread."""
    points = mixture.points()[0]
    shuffled = np.random.default_rng(0).permutation(points)
    samples = np.stack([shuffled, shuffled[::-1]])
    cell = mog25.measure(small_cell(), samples, "siddm", "reduced", [4, 5], seconds=2.0)
    np.testing.assert_allclose(cell.frechet, 0, atol=1e-8)
    assert cell.modes_any == cell.modes_covered == [25, 25]
    np.testing.assert_allclose(cell.kl_to_uniform, 0, atol=2e-3)
    np.testing.assert_allclose(cell.within_mode_std, 0.33, atol=0.01)
    assert (cell.iterations, cell.iterations_per_second, cell.num_timesteps) == (4, 2.0, 2)


@pytest.mark.quick
def test_table_text():
    """Mean and deviation over seeds; a single seed has none; no number of the paper, a dash."""
    cell = mog25_table.Cell(
        method="siddm",
        num_timesteps=4,
        setting="paper",
        iterations=187_500,
        batch_size=4_000,
        seeds=[0, 1, 2],
        frechet=[1.0, 2.0, 4.5],
        modes_any=[25, 25, 25],
        modes_covered=[24, 25, 23],
        high_quality_share=[0.9, 0.8, 0.7],
        kl_to_uniform=[0.01, 0.02, 0.03],
        within_mode_std=[0.33, 0.33, 0.33],
        seconds=100.0,
        iterations_per_second=1_875.4,
        device="cpu",
    )
    alone = msgspec.structs.replace(
        cell,
        method="gan", num_timesteps=3, seeds=[0], frechet=[math.pi], modes_any=[3],
        modes_covered=[1], high_quality_share=[0.123], kl_to_uniform=[2.5], within_mode_std=[0.2],
    )  # fmt: skip
    header, rule, first, second = mog25_table.table([cell, alone]).splitlines()
    assert header.split(" | ")[:4] == ["| method", "T", "Frechet", "paper"]
    assert rule == "|" + " --- |" * (header.count("|") - 1)
    assert first == (
        "| siddm | 4 | 2.500 +- 1.803 | 1.21 | 25.0 +- 0.0 | 24.0 +- 1.0 | 80.0 +- 10.0 % | "
        "0.020 +- 0.010 | 0.330 +- 0.000 | 0 of 3 | paper | 187,500 x 4,000 | 1875 |"
    )
    assert second == (
        "| gan | 3 | 3.142 | - | 3.0 | 1.0 | 12.3 % | 2.500 | 0.200 | 0 of 1 | paper | "
        "187,500 x 4,000 | 1875 |"
    )


@pytest.mark.quick
def test_a_damaged_table_is_one_line_and_stays(tmp_path, monkeypatch):
    """Cut off anywhere, or with lists of other lengths; one of an older version is read."""
    monkeypatch.setattr(mog25, "train_seeds", lambda *arguments, **more: pytest.fail("trained"))
    made_up_results.write_cells(tmp_path, {("siddm", 2): [0.5, 1.5]})
    file = tmp_path / "mog25" / "cells.json"
    whole = file.read_bytes()
    [cell] = mog25_table.read_cells(file.parent)
    assert mog25_table.to_json([cell]) == mog25_table.to_json(json.loads(whole))
    damaged = [whole[:n] for n in range(0, len(whole), 41)]
    damaged += [b"{}", b"[1]", whole.replace(b"0.5, 1.5", b"0.5"), whole.replace(b"siddm", b"\xff")]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(UserError) as error:
            mog25.run(file.parent, methods=["siddm"], steps=[2], seeds=[0, 1], setting="reduced")
        assert str(file) in str(error.value) and "\n" not in str(error.value)
        assert file.read_bytes() == content
    # Older versions wrote NaN, and neither processor time nor where the numbers come from.
    old = {k: v for k, v in json.loads(whole)[0].items() if k not in ("cpu_seconds", "about")}
    old["within_mode_std"] = [float("nan"), 0.3]
    file.write_text(json.dumps([old]))
    [cell] = mog25_table.read_cells(file.parent)
    assert (cell.within_mode_std, cell.cpu_seconds) == ([None, 0.3], None)
