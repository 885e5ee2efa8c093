"""Importing published weights and options: what is refused, and two ways to the same config."""

import argparse
from pathlib import Path

import jax
import numpy as np
import pytest

from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError
from ddgan_jax.interop import nvlabs, nvlabs_checkpoints, nvlabs_options
from tests import golden_cases as golden

pytestmark = pytest.mark.quick

CONFIGS = Path(__file__).parents[1] / "configs"

# ---- options


@pytest.mark.parametrize("name", nvlabs_options.PUBLISHED)
@pytest.mark.parametrize("kind", [dict, lambda args: argparse.Namespace(**args)])
def test_published_commands_are_the_shipped_configs(name, kind):
    """Everything that the method consists of; where images come from is our own choice."""
    ours = load_config(str(CONFIGS / f"{name}_ddgan.py"))
    theirs = nvlabs.config_from_args(kind(nvlabs_checkpoints.read_args(name)))
    for section in ("diffusion", "objective", "generator", "discriminator", "optimizer"):
        assert theirs[section].to_dict() == ours[section].to_dict(), section
    for field in ("name", "image_size", "channels", "flip"):
        assert theirs.data[field] == ours.data[field], field
    for field in ("batch_size", "num_steps"):
        assert theirs.train[field] == ours.train[field], field


def test_official_defaults():
    config = nvlabs.config_from_args({})
    assert config.optimizer.ema_decay == 0  # no moving average unless use_ema
    assert config.objective.r1_interval == 1  # R1 in every step unless lazy_reg
    assert (config.objective.r1_gamma, config.train.seed) == (0.05, 1024)
    assert (config.generator.latent_layers, config.train.batch_size) == (3, 128)
    assert config.diffusion.schedule == "vp"


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        # Values without a type in the official parser arrive as strings.
        ({"attn_resolutions": "16"}, "generator.attention_resolutions", (16,)),
        ({"attn_resolutions": ["16", "8"]}, "generator.attention_resolutions", (16, 8)),
        ({"attn_resolutions": 32}, "generator.attention_resolutions", (32,)),
        ({"fir_kernel": ["1", "2", "1"]}, "generator.fir_kernel", (1, 2, 1)),
        ({"image_size": "64"}, "data.image_size", 64),
        ({"lr_g": "3e-4"}, "optimizer.generator_learning_rate", 3e-4),
        ({"fir": False}, "generator.fir", False),
        ({"conditional": False}, "generator.time_conditional", False),
        ({"not_use_tanh": True}, "generator.output_tanh", False),
        ({"use_geometric": True}, "diffusion.schedule", "geometric"),
        ({"ema_decay": 0.9}, "optimizer.ema_decay", 0.0),
        ({"use_ema": True, "ema_decay": 0.9}, "optimizer.ema_decay", 0.9),
        ({"dataset": "stackmnist"}, "data.name", "stacked_mnist"),
        ({"dataset": "stackmnist"}, "data.flip", False),
        ({"dataset": "stackmnist"}, "discriminator.name", "small"),
        ({"dataset": "celeba_256"}, "discriminator.name", "large"),
        ({"image_size": 64}, "discriminator.name", "large"),
        ({"image_size": 32}, "discriminator.name", "small"),
        ({"image_size": 64, "discriminator": "small"}, "discriminator.name", "small"),
        ({"dataset": "cifar10", "no_lr_decay": True}, "optimizer.decay_steps", 0),
        ({"an_option_of_a_fork": 1}, "data.image_size", 32),
    ],
)
def test_one_option(args, field, value):
    section, name = field.split(".")
    assert nvlabs.config_from_args(args)[section][name] == value


@pytest.mark.parametrize("option", ["image_size", "lr_g", "nz"])
def test_impossible_option(option):
    with pytest.raises(UserError, match=f"official option {option}: .*many"):
        nvlabs.config_from_args({option: "many"})


# ---- weights


CASES = {"generator": "g01_default", "discriminator": "d01_small_b8"}
KEYS = {
    "generator": ("all_modules.3.Conv_0.weight", "all_modules.3.GroupNorm_0.style.bias"),
    "discriminator": ("conv2.skip.0.weight", "start_conv.weight"),
}

every_network = pytest.mark.parametrize("network", CASES)


@pytest.fixture(scope="module")
def cases():
    loaded = {network: golden.load(name) for network, name in CASES.items()}
    return {n: (case.config(), case.state_dict(n, np.float32)) for n, case in loaded.items()}


def import_network(network, state_dict, config):
    return getattr(nvlabs, f"import_{network}")(state_dict, config)


@every_network
def test_every_entry_arrives_once(cases, network):
    """The names form a bijection, and values keep dtype and numbers, with or without a prefix."""
    config, state_dict = cases[network]
    names = jax.tree.leaves(getattr(nvlabs, f"{network}_names")(config))
    assert sorted(names) == sorted(state_dict)
    prefixed = {f"module.{k}" if "weight" in k else k: v for k, v in state_dict.items()}
    params = import_network(network, prefixed, config)
    for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
        assert leaf.dtype == np.float32
        official = golden.official_layout(name, leaf)
        np.testing.assert_array_equal(official.ravel(), state_dict[name].ravel(), err_msg=name)


def problems(network, state_dict, config):
    with pytest.raises(UserError) as caught:
        import_network(network, state_dict, config)
    start, _, listed = str(caught.value).partition(": ")
    assert start == f"this state dict is not that {network}"
    return listed.split("; ")


@every_network
def test_missing_unused_and_misshapen_entries(cases, network):
    """All of them are named, and nothing else."""
    config, state_dict = cases[network]
    missing, misshapen = KEYS[network]
    wrong = state_dict | {"module.extra.weight": np.zeros(3), misshapen: state_dict[misshapen][1:]}
    del wrong[missing]
    *absent, shape = problems(network, wrong, config)
    assert absent == [f"missing {missing}", "unused extra.weight"]
    assert shape.startswith(f"{misshapen} has shape (")


def test_transposed_entry_is_not_taken_for_a_square_one(cases):
    """A linear weight of (in, out) where (out, in) is meant has another shape."""
    config, state_dict = cases["generator"]
    key = "z_transform.1.weight"
    turned = state_dict | {key: state_dict[key].T}
    assert state_dict[key].shape[0] != state_dict[key].shape[1]
    (only,) = problems("generator", turned, config)
    assert only.startswith(f"{key} has shape")


def test_weights_of_another_network(cases):
    """Many problems at once: the first are named, the others counted."""
    config, _ = cases["generator"]
    *listed, rest = problems("generator", cases["discriminator"][1], config)
    assert len(listed) == 8
    assert all(entry.startswith("missing") for entry in listed)
    count = len(cases["generator"][1]) + len(cases["discriminator"][1]) - 8
    assert rest == f"and {count} more"


def test_weights_that_no_forward_pass_reads():
    """A network that does not see the time still owns layers for it; ours does not."""
    case = golden.load("g11_unconditional")
    state_dict = case.state_dict("generator")
    unread = [name for name in state_dict if ".Dense_0." in name]
    params = nvlabs.import_generator(state_dict, case.config())
    assert len(jax.tree.leaves(params)) == len(state_dict) - len(unread)
    assert len(unread) > 10
