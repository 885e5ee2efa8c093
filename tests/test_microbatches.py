"""Gradients added up over parts of a batch, and groups of images that no layout tears apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import build, models, train_step
from ddgan_jax.cli.arguments import CONFIG_FLAGS, Flag, parse_flags
from ddgan_jax.models.discriminators import minibatch_stddev
from tests.methods import config_of

pytestmark = pytest.mark.quick

BATCH = 16


def features(batch=BATCH):
    return jax.random.normal(jax.random.key(0), (batch, 2, 3, 5))


def test_neighbours_are_spread_groups_in_another_order():
    """Groups (0, 4, 8, 12), ... of the batch read by columns are groups (0, 1, 2, 3), ..."""
    x = features()
    order = np.arange(BATCH).reshape(4, BATCH // 4).T.ravel()
    spread, neighbours = minibatch_stddev(x), minibatch_stddev(x[order], "neighbours")
    np.testing.assert_allclose(neighbours, spread[order], rtol=1e-6)


@pytest.mark.parametrize("parts", [2, 4])
def test_neighbours_do_not_depend_on_the_split(parts):
    x = features()
    split = [minibatch_stddev(part, "neighbours") for part in jnp.split(x, parts)]
    np.testing.assert_array_equal(jnp.concatenate(split), minibatch_stddev(x, "neighbours"))
    assert not np.allclose(
        jnp.concatenate([minibatch_stddev(part) for part in jnp.split(x, parts)]),
        minibatch_stddev(x),
    )


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_mean_gradient_of_a_known_loss(parts):
    """L(p) = mean (p x)^2 has the gradient 2 p mean x^2; metrics are averaged likewise."""
    x = jax.random.normal(jax.random.key(1), (BATCH, 3))

    def loss(p, x, nothing):
        assert nothing is None
        value = jnp.square(p * x).mean()
        return value, {"value": value}

    gradient, metrics = train_step.mean_gradient(loss, jnp.float32(1.5), (x, None), parts)
    np.testing.assert_allclose(gradient, 3 * jnp.square(x).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["value"], 2.25 * jnp.square(x).mean(), rtol=1e-6)


def test_parts_of_a_ddgan_batch_give_the_gradient_of_the_whole():
    """With R1, whose cross terms stay within the groups; float64, so that only the law is seen."""
    config = config_of("ddgan", discriminator__stddev_groups="neighbours")
    objective = build.objective(config)
    with jax.enable_x64(True):
        generator, discriminator = jax.tree.map(
            lambda x: x.astype(np.float64), models.init_params(config, jax.random.key(0))
        )
        x_0 = jax.random.uniform(jax.random.key(1), (8, 8, 8, 1), np.float64, -1)
        draws = objective.draw(jax.random.split(jax.random.key(2), 8), (8, 8, 1))

        def gradient(parts):
            return train_step.mean_gradient(
                lambda p, *examples: objective.discriminator_loss(p, generator, *examples, True),
                discriminator,
                (x_0, None, draws),
                parts,
            )

        compiled = jax.jit(gradient, static_argnums=0)
        (whole, metrics), (parts, same) = compiled(1), compiled(2)
        largest = max(np.abs(a).max() for a in jax.tree.leaves(whole))
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-12 * largest)
        for name, value in metrics.items():
            np.testing.assert_allclose(same[name], value, rtol=1e-9)


def test_flags_may_be_spelled_with_hyphens():
    """--num-processes is --num_processes; values and config fields keep their hyphens."""
    known = (*CONFIG_FLAGS, Flag("num_processes", "N", "", kind="integer"))
    values, rest = parse_flags(
        "ddgan x", known, ["--config=a-b.py", "--num-processes=2", "--config.data.name=a-b"]
    )
    assert (values.num_processes, values.config) == (2, "a-b.py")
    assert rest == ["--config.data.name=a-b"]
