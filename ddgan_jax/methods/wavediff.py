"""WaveDiff (Phung, Dao, Tran 2023): DDGAN on Haar bands, with a term that pulls x_0' to x_0.

The discriminator's loss is DDGAN's (equation 1 of `methods.ddgan`). The generator's has one more
term, the mean absolute difference over examples, pixels and channels, with the weight w,

    L_G = E softplus(-D(x_t', x_{t+1}, t)) + w E |x_0' - x_0|                                   (1)

x is the image in the space that is diffused: in WaveDiff its Haar bands (`haar`), of which nothing
here knows. The term has the same weight at every t, also where x_{t+1} is almost pure noise.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ddgan_jax.methods.ddgan import DDGAN
from ddgan_jax.methods.objective import Draws
from ddgan_jax.state import Images, Labels, Metrics, Params


@dataclasses.dataclass(frozen=True, eq=False)
class WaveDiff(DDGAN):
    """DDGAN with the reconstruction term of equation 1."""

    reconstruction_weight: float

    def generator_loss(
        self,
        params: Params,
        discriminator_params: Params,
        x_0: Images,
        labels: Labels,
        draws: Draws,
    ) -> tuple[jax.Array, Metrics]:
        """Return L_G of equation 1 and its terms, the second one without its weight."""
        pair = self.pair(params, x_0, labels, draws)
        loss, metrics = self.adversarial_loss(discriminator_params, pair, labels, draws)
        # A config whose generator tells no x_0 is refused.
        assert pair.chain.fake_x_0 is not None
        reconstruction = jnp.abs(pair.chain.fake_x_0 - x_0).mean()
        metrics["g_reconstruction"] = reconstruction
        return loss + self.reconstruction_weight * reconstruction, metrics
