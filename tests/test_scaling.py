"""The page about scaling: its model against cases worked by hand, its numbers against configs."""

import json
from pathlib import Path

import jax
import pytest

from benchmarks import scaling, shapes
from benchmarks.chips import CHIPS, Chip
from ddgan_jax import models
from ddgan_jax.config.files import load_config, shipped_configs
from ddgan_jax.state import num_parameters

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
CHIP = Chip("made up", 1e12, 16e9, 100e9, 8, 10e9, ())


def facts(**changes) -> dict:
    return {
        "batch_size": 64,
        "state_bytes": 3_000,
        "parameter_bytes": {"generator": 1_000, "discriminator": 500},
        "flops_per_image_and_step": {"without_r1": 1e9, "mean": 2e9},
    } | changes


def test_ring_inside_a_group():
    # Two chips exchange half of the bytes twice; many pass nearly all of them twice.
    assert scaling.all_reduce_seconds(100e9, 2, CHIP) == pytest.approx(1.0)
    assert scaling.all_reduce_seconds(100e9, 8, CHIP) == pytest.approx(2 * 7 / 8)
    assert scaling.all_reduce_seconds(100e9, 1, CHIP) == 0


def test_groups_meet_over_the_network_with_their_shares():
    # Two groups of 8: each chip has an eighth of the sum, and exchanges half of that twice.
    inside, between = 2 * 7 / 8, 2 * (1 / 2) * (100e9 / 8) / 10e9
    assert scaling.all_reduce_seconds(100e9, 16, CHIP) == pytest.approx(inside + between)


def test_no_figure_where_none_is_published():
    alone = CHIP._replace(network_bytes_per_second=None)
    assert scaling.all_reduce_seconds(1e9, 8, alone) is not None
    assert scaling.all_reduce_seconds(1e9, 16, alone) is None


@pytest.mark.parametrize(
    ("compute", "communication", "expected"),
    [(3.0, 1.0, (0.75, 1.0)), (1.0, 3.0, (0.25, 1 / 3)), (1.0, 0.0, (1.0, 1.0))],
)
def test_efficiency_without_and_with_overlap(compute, communication, expected):
    assert scaling.efficiency(compute, communication) == pytest.approx(expected)


def test_time_of_computation():
    # 10 images of 2 GFLOP at 40 % of 1 TFLOP/s.
    assert scaling.compute_seconds(facts(), 10, CHIP) == pytest.approx(20e9 / 0.4e12)


def test_memory_left_for_activations():
    # 90 % of 10,000 bytes, less a state of 3,000 and the larger network's gradients of 1,000.
    assert scaling.images_at_once(facts(), 500, 10_000) == 10
    assert scaling.images_at_once(facts(), 5_001, 10_000) == 0
    assert scaling.images_at_once(facts(state_bytes=9_000), 1, 10_000) == 0


@pytest.mark.parametrize(
    ("images", "at_once", "parts"), [(64, 64, 1), (64, 63, 2), (64, 20, 4), (6, 2, 3), (4, 0, None)]
)
def test_smallest_split_that_fits(images, at_once, parts):
    assert scaling.microbatches(images, at_once) == parts


def test_every_config_has_its_facts_and_its_devices():
    known = json.loads((RESULTS / "shapes.json").read_text())
    assert set(known) == set(shipped_configs()) == set(scaling.DEVICES)
    for name, values in known.items():
        assert values["batch_size"] % scaling.DEVICES[name] == 0


def test_facts_are_those_of_the_config():
    """Those of the smallest networks, which are traced in seconds."""
    stored = json.loads((RESULTS / "shapes.json").read_text())["mog25"]
    assert shapes.facts_of(load_config(str(ROOT / "configs" / "mog25.py"))) == stored


@pytest.mark.parametrize("name", ["digits_ddgan", "cifar10_ddgan"])
def test_parameters_are_those_of_the_config(name):
    config = load_config(str(ROOT / "configs" / f"{name}.py"))
    networks = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))
    stored = json.loads((RESULTS / "shapes.json").read_text())[name]
    assert [num_parameters(network) for network in networks] == list(stored["parameters"].values())
    assert [shapes.size_of(network) for network in networks] == list(
        stored["parameter_bytes"].values()
    )


def test_reduced_are_the_gradients_and_a_few_metrics():
    for values in json.loads((RESULTS / "shapes.json").read_text()).values():
        gradients = sum(values["parameter_bytes"].values())
        assert gradients < values["reduced_bytes_per_step"] < gradients + 100


def test_page_is_the_rendering_of_the_results():
    results = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("shapes", "devices"))
    assert (ROOT / "docs" / "scaling.md").read_text() == scaling.render(*results)


def test_every_chip_names_its_source():
    assert all(chip.sources and chip.sources[0].startswith("https://") for chip in CHIPS)
