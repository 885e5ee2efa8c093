"""Computing in bfloat16: how far losses and gradients are from those in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddgan_jax import build, models
from ddgan_jax.config import diffused_shape
from tests.methods import config_of, every_method, random_params

BATCH = 8
# A bfloat16 has 8 significant bits, an error of up to 0.2 % in each rounding. Losses are means, in
# which that averages out. Gradients pass through all layers twice, some hundred roundings that add
# up like a random walk: measured are 2 to 4.5 %, twice that is allowed.
LOSS_TOLERANCE = 0.02
GRADIENT_TOLERANCE = 0.09
# The gradient of WaveDiff's absolute difference is a sign, which rounding turns where the
# difference is small: measured are 9.5 %.
WITH_SIGNS = 0.19


def losses_and_gradients(method, compute_dtype):
    """Metrics and gradients by the update they are of, for the same parameters and draws.

    The discriminator's come with R1 and without. All are one program, since compiling is what takes
    time.
    """
    config = config_of(method, train__compute_dtype=compute_dtype)
    objective = build.objective(config)
    template = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))
    generator, discriminator = random_params(template)
    shape = diffused_shape(config)
    x_0 = jax.random.uniform(jax.random.key(1), (BATCH, *shape), minval=-1, maxval=1)
    labels = jnp.arange(BATCH) % 10
    draws = objective.draw(jax.random.split(jax.random.key(2), BATCH), shape)

    def all_updates(generator, discriminator):
        of_d = jax.grad(objective.discriminator_loss, has_aux=True)
        of_g = jax.grad(objective.generator_loss, has_aux=True)
        return {
            "discriminator": of_d(discriminator, generator, x_0, labels, draws, False),
            "discriminator with R1": of_d(discriminator, generator, x_0, labels, draws, True),
            "generator": of_g(generator, discriminator, x_0, labels, draws),
        }

    return jax.jit(all_updates)(generator, discriminator)


@every_method
def test_losses_and_gradients_are_near_those_in_float32(method):
    in_float32 = losses_and_gradients(method, "float32")
    in_bfloat16 = losses_and_gradients(method, "bfloat16")
    for update, (full, metrics) in in_float32.items():
        half, half_metrics = in_bfloat16[update]
        for name, value in metrics.items():
            np.testing.assert_allclose(
                half_metrics[name], value, rtol=LOSS_TOLERANCE, err_msg=f"{update} {name}"
            )
        assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {np.dtype(np.float32)}
        difference = jax.tree.map(jnp.subtract, half, full)
        error = optax.tree.norm(difference) / optax.tree.norm(full)
        has_signs = (method, update) == ("wavediff", "generator")
        tolerance = WITH_SIGNS if has_signs else GRADIENT_TOLERANCE
        # The lower bound shows that it was another computation.
        assert 1e-4 < error < tolerance, update
