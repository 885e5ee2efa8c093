"""Our train step, given the reference's draws, reproduces its trajectories."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest

from ddgan_jax import build, distributed, train_step
from ddgan_jax.config import base_config
from ddgan_jax.config.files import from_json, to_json
from ddgan_jax.interop import nvlabs
from ddgan_jax.methods.objective import Draws
from ddgan_jax.state import DiscriminatorState, GeneratorState, TrainState
from tests import golden_cases as golden
from tests.methods import GivenDraws

DEVICE = jax.devices()[:1]
MOST_STEPS = 4  # of any case
LOSSES = ("d_loss_real", "d_loss_fake", "r1", "g_loss", "g_reconstruction")
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


class Settings(NamedTuple):
    """What may differ between cases of the same networks: arguments of one compiled step."""

    r1_gamma: float
    ema_decay: float
    rates: train_step.Optimizers  # of the first MOST_STEPS steps


@functools.cache
def step_of(networks: str, r1: bool):
    """step(state, batch, settings), given the config as JSON, mapped over one device."""
    config = from_json(networks)
    o = config.optimizer

    def step(state, batch, settings):
        objective = dataclasses.replace(build.objective(config), r1_gamma=settings.r1_gamma)
        optimizers = train_step.Optimizers(
            *(
                optax.adam(lambda count, rates=rates: rates[count], b1=o.beta1, b2=o.beta2)
                for rates in settings.rates
            )
        )
        one_step = GivenDraws(
            objective, optimizers, settings.ema_decay, flip=False, microbatches=1, r1=r1
        )
        return one_step(state, batch, jax.random.key(0))

    return distributed.map_step(step, "shard_map", DEVICE)


def settings_and_networks(config):
    """The config in two parts, of which only the second is compiled."""
    o = config.optimizer
    schedules = (build.learning_rate(config, network) for network in ("generator", "discriminator"))
    rates = (np.array([schedule(step) for step in range(MOST_STEPS)]) for schedule in schedules)
    settings = Settings(config.objective.r1_gamma, o.ema_decay, train_step.Optimizers(*rates))
    networks = base_config()
    for section in ("data", "diffusion", "generator", "discriminator"):
        networks[section] = config[section]
    networks.objective.reconstruction_weight = config.objective.reconstruction_weight
    o = networks.optimizer
    o.beta1, o.beta2 = config.optimizer.beta1, config.optimizer.beta2
    return settings, to_json(networks)


def given_draws(case, iteration: int, network: str, dtype) -> Draws:
    """The draws of one network's update as the reference made them."""
    shape = case.diffused_shape()
    prefix = f"{network}{iteration}."
    return Draws(
        t=case.arrays["t"][iteration, "DG".index(network)],
        noise_t=case.normal(prefix + "noise_t", shape, dtype),
        noise_tp1=case.normal(prefix + "noise_tp1", shape, dtype),
        z=case.normal(prefix + "z", (shape[0], case.config().generator.latent_dim), dtype),
        noise_posterior=case.normal(prefix + "noise_post", shape, dtype),
    )


def initial_state(case, config, dtype) -> TrainState:
    generator = nvlabs.import_generator(case.state_dict("generator", dtype), config)
    discriminator = nvlabs.import_discriminator(case.state_dict("discriminator", dtype), config)
    empty = jax.jit(
        lambda *params: [o.init(p) for o, p in zip(build.optimizers(config), params, strict=True)]
    )
    opt_states = empty(generator, discriminator)
    return TrainState(
        np.int32(0),
        # The moving average starts after the first update, so that zeros here change nothing.
        GeneratorState(generator, jax.tree.map(np.zeros_like, generator), opt_states[0]),
        DiscriminatorState(discriminator, opt_states[1]),
    )


# In float64, which checks the arithmetic to nine digits. A trajectory in float32 is that of the
# whole checkpoint in test_import.py; test_golden.py bounds the rounding of outputs and gradients.
@pytest.mark.parametrize("name", golden.names("t") + golden.wavediff_names("wt"))
def test_trajectory(name):
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        check_trajectory(golden.load(name), np.float64)


def with_rates_of_the_reference(settings, case, config):
    """The settings at the reference's rates after the end of the cosine.

    There torch's cosine rises again, and ours stays at its end.
    """
    end, count = config.optimizer.decay_steps, case.meta["n_iter"]
    if 0 < end < count:
        for ours, theirs in zip(settings.rates, case.arrays["lrs"].T, strict=True):
            ours[end:count] = theirs[end:]
    return settings


def check_trajectory(case, dtype):
    config = training_config(case)
    settings, networks = settings_and_networks(config)
    settings = with_rates_of_the_reference(settings, case, config)
    state, settings = jax.device_put(
        (initial_state(case, config, dtype), settings), distributed.replicated(DEVICE)
    )
    names = nvlabs.generator_names(config), nvlabs.discriminator_names(config)
    tolerance, table_tolerance = TOLERANCES[dtype]
    for i in range(case.meta["n_iter"]):
        x_0 = build.space(config).encode(case.uniform(f"real{i}", case.image_shape(), dtype))
        if "y0_stat" in case.arrays:
            statistics = golden.tensor_statistics(golden.channels_first(x_0))
            np.testing.assert_allclose(statistics, case.arrays["y0_stat"][i], rtol=1e-12)
        batch = {
            "x_0": x_0,
            "d_draws": given_draws(case, i, "D", dtype),
            "g_draws": given_draws(case, i, "G", dtype),
        }
        batch = jax.device_put(batch, distributed.split(DEVICE))
        step = step_of(networks, build.r1_is_due(config, i))
        state, metrics = step(state, batch, settings)
        reference = case.arrays["losses"][i]
        ours = [float(metrics.get(name, np.nan)) for name in LOSSES[: len(reference)]]
        np.testing.assert_allclose(ours, reference, rtol=tolerance)
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
