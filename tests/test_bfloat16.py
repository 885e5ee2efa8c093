"""Computing in bfloat16: how far losses and gradients are from those in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddgan_jax import build, models
from tests.methods import config_of, every_method, random_params

BATCH = 8
# A bfloat16 has 8 significant bits, an error of up to 0.2 % in each rounding. Losses are means, in
# which that averages out. Gradients pass through all layers twice, some hundred roundings that add
# up like a random walk: measured are 2 to 4.5 %, twice that is allowed.
LOSS_TOLERANCE = 0.02
GRADIENT_TOLERANCE = 0.09


def losses_and_gradients(method, compute_dtype, r1):
    """Metrics and gradients of both networks, always for the same parameters and draws."""
    config = config_of(method, train__compute_dtype=compute_dtype)
    objective = build.objective(config)
    template = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))
    generator, discriminator = random_params(template)
    shape = (config.data.image_size, config.data.image_size, config.data.channels)
    x_0 = jax.random.uniform(jax.random.key(1), (BATCH, *shape), minval=-1, maxval=1)
    labels = jnp.arange(BATCH) % 10
    draws = objective.draw(jax.random.split(jax.random.key(2), BATCH), shape)

    def both(generator, discriminator):
        of_d = jax.grad(objective.discriminator_loss, has_aux=True)
        of_g = jax.grad(objective.generator_loss, has_aux=True)
        d_gradient, d_metrics = of_d(discriminator, generator, x_0, labels, draws, r1)
        g_gradient, g_metrics = of_g(generator, discriminator, x_0, labels, draws)
        return d_metrics | g_metrics, d_gradient, g_gradient

    return jax.jit(both)(generator, discriminator)


@every_method
@pytest.mark.parametrize("r1", [False, True])
def test_losses_and_gradients_are_near_those_in_float32(method, r1):
    metrics, *gradients = losses_and_gradients(method, "float32", r1)
    half_metrics, *half_gradients = losses_and_gradients(method, "bfloat16", r1)
    for name, value in metrics.items():
        np.testing.assert_allclose(half_metrics[name], value, rtol=LOSS_TOLERANCE, err_msg=name)
    for full, half in zip(gradients, half_gradients, strict=True):
        assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {np.dtype(np.float32)}
        difference = jax.tree.map(jnp.subtract, half, full)
        error = optax.tree.norm(difference) / optax.tree.norm(full)
        assert 1e-4 < error < GRADIENT_TOLERANCE  # the lower bound: it was another computation
