"""Our train step, given the reference's draws, reproduces its trajectories."""

from functools import partial

import jax
import numpy as np
import pytest

from ddgan_jax import losses, parallel, train_step
from ddgan_jax.interop import nvlabs
from ddgan_jax.types import DiscriminatorState, GeneratorState, TrainState
from tests import golden_cases as golden

LOSSES = ("d_loss_real", "d_loss_fake", "r1", "g_loss")
LOGITS = {"d_logit_real": "D_real", "d_logit_fake": "D_fake"}  # our metric: their logits
# (losses, parameter tables) relative; the files' README derives both.
TOLERANCES = {np.float64: (1e-9, 5e-8), np.float32: (5e-6, 1e-4)}


def training_config(case):
    """The config of a training case; its schedule is given as [epochs, steps per epoch]."""
    config, meta = case.config(), case.meta
    config.optimizer.generator_learning_rate = meta["lr_g"]
    config.optimizer.discriminator_learning_rate = meta["lr_d"]
    config.optimizer.beta1, config.optimizer.beta2 = meta["beta1"], meta["beta2"]
    config.optimizer.final_learning_rate = meta["eta_min"]
    config.optimizer.ema_decay = meta["ema_decay"]
    config.objective.r1_gamma = meta["r1_gamma"]
    config.objective.r1_interval = meta["lazy_reg"] or 1
    if meta["lr_schedule"]:
        epochs, interval = meta["lr_schedule"]
        config.optimizer.decay_interval_steps = interval
        config.optimizer.decay_steps = epochs * interval
    return config


def given_draws(case, iteration: int, network: str, dtype) -> losses.Draws:
    """The draws of one network's update as the reference made them."""
    shape = case.image_shape()
    prefix = f"{network}{iteration}."
    return losses.Draws(
        t=case.arrays["t"][iteration, "DG".index(network)],
        noise_t=case.normal(prefix + "noise_t", shape, dtype),
        noise_tp1=case.normal(prefix + "noise_tp1", shape, dtype),
        z=case.normal(prefix + "z", (shape[0], case.config().generator.latent_dim), dtype),
        noise_posterior=case.normal(prefix + "noise_post", shape, dtype),
        dropout_keys=None,
    )


def initial_state(case, config, optimizers, dtype) -> TrainState:
    generator = nvlabs.import_generator(case.state_dict("generator", dtype), config)
    discriminator = nvlabs.import_discriminator(case.state_dict("discriminator", dtype), config)
    # The moving average starts after the first update, so that zeros here change nothing.
    return TrainState(
        np.int32(0),
        GeneratorState(
            generator,
            jax.tree.map(np.zeros_like, generator),
            optimizers.generator.init(generator),
        ),
        DiscriminatorState(discriminator, optimizers.discriminator.init(discriminator)),
    )


# Float32 for one case: the others are the same arithmetic, which float64 checks to nine digits,
# and what single precision adds is bounded case by case in test_golden.py.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, np.float64) for name in golden.names("t")] + [("t02_train_nolazy", np.float32)],
)
def test_trajectory(name, dtype):
    with jax.enable_x64(dtype == np.float64), jax.default_matmul_precision("highest"):
        check_trajectory(golden.load(name), dtype)


def check_trajectory(case, dtype):
    config = training_config(case)
    objective, optimizers = losses.make_objective(config), train_step.make_optimizers(config)
    device = jax.devices()[:1]
    state = initial_state(case, config, optimizers, dtype)
    state = jax.device_put(state, parallel.replicated(device))

    def step_for(r1):
        update = partial(train_step.update, objective, optimizers, config.optimizer.ema_decay, r1)
        return parallel.map_step(
            lambda state, batch, key: update(state, **batch), "shard_map", device
        )

    steps = {r1: step_for(r1) for r1 in (True, False)}
    names = nvlabs.generator_names(config), nvlabs.discriminator_names(config)
    tolerance, table_tolerance = TOLERANCES[dtype]
    for i in range(case.meta["n_iter"]):
        batch = {
            "x_0": case.uniform(f"real{i}", case.image_shape(), dtype),
            "discriminator_draws": given_draws(case, i, "D", dtype),
            "generator_draws": given_draws(case, i, "G", dtype),
        }
        batch = parallel.place_batch(batch, "shard_map", device)
        state, metrics = steps[train_step.has_r1(config, i)](state, batch, None)
        ours = [float(metrics.get(name, np.nan)) for name in LOSSES]
        np.testing.assert_allclose(ours, case.arrays["losses"][i], rtol=tolerance)
        for metric, logits in LOGITS.items():
            reference = case.arrays[logits][i].mean()
            np.testing.assert_allclose(metrics[metric], reference, rtol=0, atol=tolerance)
        check_tables(case, names, state, i, table_tolerance)


def check_tables(case, names, state, iteration, tolerance):
    """Sum, absolute sum and first values of every parameter tensor after the iteration."""
    generator_names, discriminator_names = names
    tables = {
        "G": (generator_names, state.generator.params, "g_keys"),
        "EMA": (generator_names, state.generator.ema_params, "g_keys"),
        "D": (discriminator_names, state.discriminator.params, "d_keys"),
    }
    for table, (names, params, keys) in tables.items():
        ours = dict(zip(jax.tree.leaves(names), jax.tree.leaves(params), strict=True))
        for row, key in enumerate(case.arrays[keys]):
            if key.endswith("NIN_1.b"):
                continue  # a key bias has no gradient; Adam moves it by rounding noise
            expected = case.arrays[table][iteration, row]
            statistics = golden.tensor_statistics(golden.official_layout(key, ours[key]))
            scale = max(np.abs(expected[1]), 1.0)
            np.testing.assert_allclose(
                statistics, expected, rtol=0, atol=tolerance * scale, err_msg=f"{table} {key}"
            )
