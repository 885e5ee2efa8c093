"""Define the dense networks of the 25-Gaussian experiment.

Sizes and initialisers are those of the SIDDM authors' toy program. Points are (B, 1, 1, C), an
image of one pixel, so that they go through everything that images go through.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Num

from ddgan_jax.models import layers
from ddgan_jax.state import AnyArray

# This is U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): a uniform number has a third of the squared bound
# as its variance.
_KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Dense(nn.Module):
    """Linear layer with weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""

    features: int

    @nn.compact
    def __call__(self, x: AnyArray) -> jax.Array:
        bound = x.shape[-1] ** -0.5

        def bias_init(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(
            self.features, kernel_init=_KERNEL_INIT, bias_init=bias_init, name="linear"
        )(x)


class MLP(nn.Module):
    """Generator or discriminator: dense layers over [x, time embedding, what else is given].

    residual: a last layer joins the output with x (the generator).
    """

    features: int  # of the output
    width: int
    hidden_layers: int
    time_embedding_dim: int
    residual: bool

    @nn.compact
    def __call__(
        self,
        x: Float[AnyArray, "b 1 1 c"],
        t: Num[AnyArray, " b"],
        other: Float[AnyArray, " b *other"] | None = None,
    ) -> Float[jax.Array, "b 1 1 features"]:
        """Return the output. other: the latent, x_{t+1}, or None."""
        # Points are images of one pixel, whose channels are the coordinates.
        flat = x.reshape(len(x), -1)
        time = layers.sinusoidal_embedding(t, self.time_embedding_dim, x.dtype)
        time = nn.leaky_relu(Dense(self.time_embedding_dim, name="time_dense_0")(time), 0.2)
        time = nn.leaky_relu(Dense(self.time_embedding_dim, name="time_dense_1")(time), 0.2)
        # A discriminator of single points has no other input.
        parts = [flat, time] if other is None else [flat, time, other.reshape(len(x), -1)]
        h = jnp.concatenate(parts, axis=1)
        for i in range(self.hidden_layers):
            h = nn.silu(Dense(self.width, name=f"dense_{i}")(h))
        h = Dense(self.features, name="output")(h)
        if self.residual:
            h = Dense(self.features, name="join")(jnp.concatenate([h, flat], axis=1))
        return h.reshape(*x.shape[:-1], self.features)
