"""DDGAN (Xiao, Kreis, Vahdat 2022): a conditional GAN for each of a few large denoising steps.

The discriminator sees a sample together with the noisier one that it came from. With real pairs
(x_t, x_{t+1}) of the forward process, generated pairs (x_t', x_{t+1}), both non-saturating losses,

    L_D = E softplus(-D(x_t, x_{t+1}, t)) + E softplus(D(x_t', x_{t+1}, t)) + gamma R1          (1)
    L_G = E softplus(-D(x_t', x_{t+1}, t))                                                      (2)

where softplus(a) = log(1 + e^a) and R1 is equation 1 of `losses`, computed in some steps only.
"""

import dataclasses

import jax
from jax.nn import softplus

from ddgan_jax.methods.objective import Draws, Objective, Pair
from ddgan_jax.state import Images, Labels, Metrics, Params


@dataclasses.dataclass(frozen=True, eq=False)
class DDGAN(Objective):
    """Equations 1 and 2 on given networks."""

    def discriminator_loss(
        self,
        params: Params,
        generator_params: Params,
        x_0: Images,
        labels: Labels,
        draws: Draws,
        r1: bool,
    ) -> tuple[jax.Array, Metrics]:
        """Return L_D of equation 1 and its terms."""
        # The generator's sample is a constant of this update.
        pair = jax.lax.stop_gradient(self.pair(generator_params, x_0, labels, draws))
        real, fake, metrics = self.judge_both(params, pair, labels, draws, r1)
        metrics |= {
            "d_loss_real": softplus(-real.logits).mean(),
            "d_loss_fake": softplus(fake.logits).mean(),
            "d_logit_real": real.logits.mean(),
            "d_logit_fake": fake.logits.mean(),
        }
        loss = metrics["d_loss_real"] + metrics["d_loss_fake"]
        if r1:
            # The entry holds gamma R1.
            loss += metrics["r1"]
        return loss, metrics

    def generator_loss(
        self,
        params: Params,
        discriminator_params: Params,
        x_0: Images,
        labels: Labels,
        draws: Draws,
    ) -> tuple[jax.Array, Metrics]:
        """Return L_G of equation 2."""
        # Here the gradient runs through the discriminator and the sample to the generator.
        pair = self.pair(params, x_0, labels, draws)
        return self.adversarial_loss(discriminator_params, pair, labels, draws)

    def adversarial_loss(
        self, discriminator_params: Params, pair: Pair, labels: Labels, draws: Draws
    ) -> tuple[jax.Array, Metrics]:
        """Return the weighted L_G of equation 2 for a pair, and the loss itself as its metric."""
        keys = draws.dropout_keys.fake
        fake = self.judge(discriminator_params, pair, pair.fake, labels, keys)
        metrics = {"g_loss": softplus(-fake.logits).mean()}
        # The log shows the loss itself, without the weight.
        return self.adversarial_weight * metrics["g_loss"], metrics
