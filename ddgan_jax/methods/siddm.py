"""SIDDM (Xu et al. 2023): match the marginals by a GAN, the forward diffusion explicitly.

The discriminator sees single images. It may have two further heads, C and R, trained on the side:

    L_D = E softplus(-D(x_t, t)) + E softplus(D(x_t', t)) + gamma R1
          + lambda E w || x_{t+1} - sqrt(1 - beta) C(x_t') ||^2 + mu E || R(x_t) - x_0 ||^2     (1)
    L_G = alpha E softplus(-D(x_t', t)) + lambda A                                              (2)

A, the auxiliary forward diffusion, its weight w and its forms are derived in `losses`, equations 2
to 6; C and its term of equation 1 are there with afd_regression. The fields are
alpha = adversarial_weight, lambda = afd_weight, mu = denoising_weight.
"""

import dataclasses
from typing import cast

import jax
from jax.nn import softplus

from ddgan_jax import losses
from ddgan_jax.methods.objective import Draws, Objective, Pair
from ddgan_jax.randomness import Purpose, normal
from ddgan_jax.state import Images, Judgement, Keys, Labels, Metrics, Params


@dataclasses.dataclass(frozen=True, eq=False)
class SIDDM(Objective):
    """Equations 1 and 2 on given networks; the fields are those of config.objective.

    `discriminate` must have the heads C and R that the weights ask for.
    """

    afd_weight: float
    afd_form: str
    afd_regression: bool
    afd_scaling: str
    denoising_weight: float

    def draw(self, keys: Keys, shape: tuple[int, ...]) -> Draws:
        """Return the randomness of one update. shape: of one example."""
        draws = super().draw(keys, shape)
        # The other forms read no noise.
        if self.afd_weight > 0 and self.afd_form == "code":
            draws = draws._replace(noise_afd=normal(keys, Purpose.AFD, shape))
        return draws

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
            loss += metrics["r1"]
        if self.afd_weight > 0 and self.afd_regression:
            # C learns from generated samples, with the same weights as in A.
            metrics["d_regression"] = self._regression(pair, fake)
            loss += self.afd_weight * metrics["d_regression"]
        if self.denoising_weight > 0:
            # R learns from real samples. The registry gives a discriminator the heads that the
            # weights ask for.
            metrics["d_denoising"] = losses.denoising_loss(cast(jax.Array, real.denoised), x_0)
            loss += self.denoising_weight * metrics["d_denoising"]
        return loss, metrics

    def generator_loss(
        self,
        params: Params,
        discriminator_params: Params,
        x_0: Images,
        labels: Labels,
        draws: Draws,
    ) -> tuple[jax.Array, Metrics]:
        """Return L_G of equation 2 and its terms."""
        pair = self.pair(params, x_0, labels, draws)
        keys = draws.dropout_keys.fake
        fake = self.judge(discriminator_params, pair, pair.fake, labels, keys)
        metrics = {"g_loss": softplus(-fake.logits).mean()}
        loss = self.adversarial_weight * metrics["g_loss"]
        if self.afd_weight > 0:
            # The log shows A itself, without the weight.
            metrics["g_afd"] = self._afd(pair, fake, draws)
            loss += self.afd_weight * metrics["g_afd"]
        return loss, metrics

    def _afd(self, pair: Pair, fake: Judgement, draws: Draws) -> jax.Array:
        """Return A, a scalar: its first half, less the second where there is a head C."""
        squares = losses.AFD_FORMS[self.afd_form](pair.step, pair.chain, draws.noise_afd)
        first_half = (losses.afd_weights(self.afd_scaling, pair.step) * squares).mean()
        if not self.afd_regression:
            return first_half
        # C is not updated here, but the gradient runs through C(x_t') to the generator.
        return first_half - self._regression(pair, fake)

    def _regression(self, pair: Pair, fake: Judgement) -> jax.Array:
        """Return the second half of A, a scalar: the error of C."""
        regression = cast(jax.Array, fake.regression)
        squares = losses.afd_regression(pair.step, pair.chain.x_tp1, regression)
        return (losses.afd_weights(self.afd_scaling, pair.step) * squares).mean()
