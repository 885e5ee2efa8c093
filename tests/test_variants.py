"""Every row of the papers' ablations is a choice of fields: it reaches the objective and trains."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import build, distributed, models, train_step
from ddgan_jax.config import base_config, siddm_config
from tests.test_losses import (
    BATCH,
    SHAPE,
    D,
    G,
    _column,
    images,
    keys,
    linear_discriminator,
    linear_generator,
)

pytestmark = pytest.mark.quick

VARIANTS = {
    "one step": {"diffusion.num_timesteps": 1},
    "two steps": {"diffusion.num_timesteps": 2},
    "eight steps": {"diffusion.num_timesteps": 8},
    "no latent": {"generator.latent": "none"},
    "direct denoising": {"objective.prediction": "x_t", "generator.output_tanh": False},
    "noise generation": {"objective.prediction": "noise", "generator.output_tanh": False},
    "one-shot GAN": {"diffusion.schedule": "one_shot", "diffusion.num_timesteps": 1},
    "augmentation": {"diffusion.num_timesteps": 1, "objective.augmentation_timesteps": 4},
    "geometric": {
        "diffusion.schedule": "geometric",
        "diffusion.beta_min": 1e-4,
        "diffusion.beta_max": 0.999,
    },
    "dropout": {"generator.dropout": 0.1},
    "no R1": {"objective.r1_gamma": 0.0},
}


def objective_on(config, generator, discriminator):
    """The objective of the config on stand-ins for its Flax modules."""
    return dataclasses.replace(
        build.objective(config),
        generate=dataclasses.replace(models.generator(config), module=generator),
        discriminate=dataclasses.replace(models.discriminator(config), module=discriminator),
    )


def one_step(config, generator, discriminator, params):
    """(state before, state after, metrics) of the first train step, with stand-ins for networks."""
    objective = objective_on(config, generator, discriminator)
    step = jax.vmap(
        dataclasses.replace(build.step(config, r1=build.r1_is_due(config, 0)), objective=objective),
        in_axes=(None, 0, None),
        out_axes=None,
        axis_name=distributed.AXIS,
    )
    batch = {
        "image": np.arange(BATCH * 4, dtype=np.uint8).reshape(1, BATCH, 2, 2, 1),
        "label": np.arange(BATCH, dtype=np.int32).reshape(1, BATCH),
        "index": np.arange(BATCH).reshape(1, BATCH),
    }
    before = train_step.initial_state(*params, build.optimizers(config))
    # Not compiled: the rows share nearly all operations, each of which JAX compiles once.
    after, metrics = step(before, batch, jax.random.key(0))
    assert after.step == 1
    assert all(np.isfinite(value) for value in metrics.values())
    return before, after, metrics


def check_first_updates(config, before, after, without_gradient=""):
    """Adam's first step is as long as the learning rate, wherever there is a gradient."""
    for name in ("generator", "discriminator"):
        old, new = (getattr(state, name).params for state in (before, after))
        for weight in old:
            rate = config.optimizer[f"{name}_learning_rate"] * (weight not in without_gradient)
            moved = np.abs(new[weight] - old[weight])
            np.testing.assert_allclose(moved, np.full_like(moved, rate), rtol=1e-2, err_msg=weight)


@pytest.mark.parametrize("name", VARIANTS)
def test_config_chooses_the_variant(name):
    """Every field of DDGAN's ablation table reaches the objective, and one step of it trains.

    The networks are the linear ones, in place of those that the config would build.
    """
    config = base_config()
    config.data.image_size, config.data.channels, config.train.batch_size = 2, 1, BATCH
    config.update_from_flattened_dict(VARIANTS[name])

    objective = build.objective(config)
    np.testing.assert_array_equal(objective.schedule.betas, build.schedule(config).betas)
    assert objective.schedule.num_timesteps == config.diffusion.num_timesteps
    assert objective.prediction == config.objective.prediction
    assert objective.latent == config.generator.latent
    assert objective.latent_shape == (config.generator.latent_dim,)
    assert objective.generator_dropout == (config.generator.dropout > 0)
    assert objective.r1_gamma == config.objective.r1_gamma
    augmentation = objective.augmentation_schedule
    levels = augmentation.num_timesteps if augmentation else 0
    assert levels == config.objective.augmentation_timesteps

    generator = SimpleNamespace(
        apply=lambda variables, *inputs, dropout_keys: linear_generator(
            variables["params"], *inputs
        )
    )
    discriminator = SimpleNamespace(
        apply=lambda variables, *inputs: linear_discriminator(variables["params"], *inputs).logits
    )
    params = jax.tree.map(jnp.float32, (G, D))
    before, after, metrics = one_step(config, generator, discriminator, params)
    assert ("r1" in metrics) == (name != "no R1")
    always_0 = config.diffusion.num_timesteps == 1  # the time; that of augmentation is not
    check_first_updates(
        config, before, after, without_gradient="h" * always_0 + "c" * (always_0 and not levels)
    )


PAIRS = {"objective.joint": True, "objective.afd_weight": 0.0}
SIDDM_VARIANTS = {
    "SIDDM": {},
    "without AFD": {"objective.afd_weight": 0.0},
    "AFD alone": {"objective.adversarial_weight": 0.0},
    "without regulariser": {"objective.denoising_weight": 0.0},
    "recon, C": {"objective.afd_regression": True},
    "kl, C": {"objective.afd_form": "kl", "objective.afd_regression": True},
    "code": {"objective.afd_form": "code"},
    "likelihood": {"objective.afd_scaling": "likelihood"},
    "time of x_t": {"objective.discriminator_time": "t"},
    "two logits": {"discriminator.num_logits": 2},
    "no latent": {"generator.latent": "none"},
    "DDGAN, U-Net": PAIRS | {"objective.denoising_weight": 0.0},
    "DDGAN, U-Net, regulariser": PAIRS,
    "x_0 judged": {
        "objective.judged": "x_0",
        "objective.denoising_weight": 0.0,
    },
}


@pytest.mark.parametrize("name", SIDDM_VARIANTS)
def test_config_chooses_the_variant_of_siddm(name):
    """Every row of SIDDM's ablations: the outputs it needs, the terms it adds, one step of it.

    The stand-in for a U-Net is one matrix on each pixel.
    """
    config = siddm_config()
    config.data.image_size, config.data.channels, config.train.batch_size = 2, 1, BATCH
    config.update_from_flattened_dict({"objective.afd_weight": 0.7} | SIDDM_VARIANTS[name])
    config.objective.denoising_weight *= 0.3
    o = config.objective
    has_c, has_r = o.afd_weight > 0 and o.afd_regression, o.denoising_weight > 0

    def pointwise(variables, x, t, labels, dropout_keys):
        assert labels is None  # there are no classes
        return x @ variables["params"]["w"] + variables["params"]["c"] * _column(t) / 1000

    widths = {
        "generator": (1 + (config.generator.latent != "none"), 1),
        "discriminator": (1 + o.joint, config.discriminator.num_logits + has_c + has_r),
    }
    rng = np.random.default_rng(0)
    params = tuple(
        {"w": rng.uniform(0.2, 1, shape), "c": rng.uniform(0.2, 1, shape[1])}
        for shape in widths.values()
    )
    params = jax.tree.map(jnp.float32, params)
    network = SimpleNamespace(apply=pointwise)
    before, after, metrics = one_step(config, network, network, params)

    expected = {"d_loss_real", "d_loss_fake", "d_logit_real", "d_logit_fake", "g_loss"}
    expected |= {"d_gradient_norm", "g_gradient_norm"}
    expected |= {"d_regression"} if has_c else set()
    expected |= {"d_denoising"} if has_r else set()
    expected |= {"g_afd"} if o.afd_weight else set()
    assert metrics.keys() == expected
    check_first_updates(config, before, after)

    objective = objective_on(config, network, network)
    draws = objective.draw(keys(), SHAPE)
    assert (draws.noise_afd is not None) == (o.afd_form == "code")
    loss, terms = objective.discriminator_loss(*params[::-1], images(), None, draws, False)
    total = terms["d_loss_real"] + terms["d_loss_fake"]
    total += o.afd_weight * terms.get("d_regression", 0)
    total += o.denoising_weight * terms.get("d_denoising", 0)
    np.testing.assert_allclose(loss, total, rtol=1e-6)
    loss, terms = objective.generator_loss(*params, images(), None, draws)
    total = o.adversarial_weight * terms["g_loss"] + o.afd_weight * terms.get("g_afd", 0)
    np.testing.assert_allclose(loss, total, rtol=1e-6)
