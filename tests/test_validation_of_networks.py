"""Validation has the same rules as the networks: it refuses exactly what cannot be built."""

import re

import jax
import jax.numpy as jnp
import pytest

from ddgan_jax import models
from ddgan_jax.config import checks
from ddgan_jax.config.shapes import ncsnpp_widths
from ddgan_jax.errors import UserError
from ddgan_jax.models import discriminators, unet
from tests.test_validation import config_with, refusal, siddm_with

pytestmark = pytest.mark.quick


NETWORKS = [
    dict(channel_multipliers=(1, 2), num_res_blocks=2),
    dict(channel_multipliers=(1, 3, 2), resblock="ddpm", progressive="residual"),
    dict(
        channel_multipliers=(2, 1),
        progressive_input="input_skip",
        progressive_combine="cat",
        progressive="output_skip",
    ),
]


def normalised_widths(params: dict, path: tuple[str, ...] = ()) -> set[int]:
    """Channels of every group normalisation among a network's parameters."""
    widths = set()
    for name, value in params.items():
        if name == "style":
            widths.add(value["bias"].size // 2)
        elif "norm" in name and "scale" in value:
            widths.add(value["scale"].size)
        elif isinstance(value, dict):
            widths |= normalised_widths(value, (*path, name))
    return widths


@pytest.mark.parametrize("options", NETWORKS)
@pytest.mark.parametrize("base_channels", [3, 4, 10, 22, 31, 120])
def test_validate_refuses_exactly_the_widths_that_the_generator_cannot_have(base_channels, options):
    config = config_with(data__image_size=8, generator__base_channels=base_channels)
    config.generator.attention_resolutions = (8,)
    config.generator.update(options)
    config.generator.latent_embedding_dim = 8
    x, t, z = jnp.zeros((1, 8, 8, 3)), jnp.zeros(1, jnp.int32), jnp.zeros((1, 100))
    generator = models.build_generator(config)
    try:
        params = jax.eval_shape(generator.init, jax.random.key(0), x, t, z)["params"]
    except (TypeError, ZeroDivisionError):  # a shape that does not exist
        advice = re.search(r"use (\d+)(?: or (\d+))?$", refusal(config))
        for works in filter(None, advice.groups()):
            config.generator.base_channels = int(works)
            checks.validate(config)
    else:
        checks.validate(config)
        expected = {c for _, c in ncsnpp_widths(config.generator, base_channels)}
        assert normalised_widths(params) == expected


@pytest.mark.parametrize("order", ["adm", "imagen"])
@pytest.mark.parametrize("image_size", [8, 12, 32])
@pytest.mark.parametrize(
    ("base_channels", "multipliers", "head_channels"),
    [
        (32, (1, 2), 32),
        (48, (2, 2), 32),  # 96 channels
        (48, (1, 2), 16),  # 48 are not 32 groups
        (64, (1, 3, 2), 64),
        (64, (1, 2), 48),
        (64, (1, 3), 96),  # divides the deepest level alone, which always attends
        (32, (1, 1, 1, 1), 0),
    ],
)
def test_validate_refuses_exactly_the_unets_that_cannot_be(
    base_channels, multipliers, head_channels, image_size, order
):
    config = siddm_with(data__image_size=image_size)
    for network in (config.generator, config.discriminator):
        network.base_channels, network.channel_multipliers = base_channels, multipliers
        network.head_channels, network.num_heads = head_channels, 4
        network.updown_order, network.attention_resolutions = order, (4,)
    try:
        unet.check(models.build_generator(config))
    except UserError:
        refusal(config)
    else:
        checks.validate(config, resumed=True)  # some have no level of 4 pixels


@pytest.mark.parametrize("batch_size", range(1, 14))
def test_validate_refuses_exactly_the_batches_that_form_no_groups(batch_size):
    x = jax.ShapeDtypeStruct((batch_size, 2, 2, 1), jnp.float32)
    config = config_with(train__batch_size=batch_size)
    try:
        jax.eval_shape(discriminators.minibatch_stddev, x)
    except ValueError:
        message = refusal(config, num_devices=1)
        assert (
            f"gives each of 1 devices {batch_size} images, which do not form groups of 4" in message
        )
    else:
        checks.validate(config, num_devices=1)


@pytest.mark.parametrize(
    ("make", "batch_size", "num_devices", "parts", "advice"),
    [
        (config_with, 250, 4, 1, "is not divisible by the 4 devices; use 240 or 256"),
        (config_with, 3, 4, 1, "is not divisible by the 4 devices; use 4"),
        (config_with, 20, 2, 1, "which do not form groups of 4 (minibatch standard deviation of "
                                "the discriminator); use 16 or 24"),
        (config_with, 60, 4, 2, "is not divisible by the 4 devices x 2 microbatches; use 32 or 64"),
        (config_with, 40, 2, 2, "which do not form groups of 4 (minibatch standard deviation of "
                                "the discriminator); use 32 or 48"),
        (siddm_with, 18, 4, 1, "is not divisible by the 4 devices; use 16 or 20"),
        (siddm_with, 20, 4, 2, "is not divisible by the 4 devices x 2 microbatches; use 16 or 24"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit_the_devices(make, batch_size, num_devices, parts, advice):
    config = make(train__batch_size=batch_size, train__microbatches=parts)
    checks.validate(config)  # the devices are not known yet
    assert refusal(config, num_devices).endswith(advice)
    for works in re.findall(r"\d+", advice.split("use")[1]):
        config.train.batch_size = int(works)
        checks.validate(config, num_devices)


def test_neighbours_must_be_on_one_device():
    """Otherwise who is compared with whom, and with it the numbers, would depend on the devices."""
    config = config_with(train__batch_size=16)
    checks.validate(config, num_devices=8)
    config.discriminator.stddev_groups = "neighbours"
    checks.validate(config, num_devices=4)
    assert refusal(config, num_devices=8).endswith("the discriminator); use 32")
