"""DDGAN on stacked 8 x 8 digits: three digits as the colours of one image, 1,000 modes to cover.

    ddgan train --config=stacked_digits_ddgan --workdir=runs/stacked_digits_ddgan
    ddgan evaluate --workdir=runs/stacked_digits_ddgan --metrics=modes

Data: 118,602 random triples of the 1,797 digits that are in the package; no download. The label is
the number that the digits spell.
Hardware: any; about two CPU cores. Published result: none for these digits, the networks are our
own choice. stacked_digits_siddm has the same networks, learning rates and number of steps; the
objective, the noise schedule and Adam's beta2 are those of its method.
Measured by us: docs/results.md.
":tiny" trains two steps of a smaller network.
"""

from ddgan_jax.config import (
    DISCRIMINATORS,
    GENERATORS,
    ConfigDict,
    apply_variant,
    base_config,
    tiny,
)


def get_config(arg: str = "") -> ConfigDict:
    c = base_config()

    c.data.name = "stacked_digits"
    c.data.image_size = 8
    # Mirrored digits are no digits.
    c.data.flip = False

    c.diffusion.num_timesteps = 4
    c.objective.r1_gamma = 0.02
    # One program to compile instead of two.
    c.objective.r1_interval = 1

    c.generator = GENERATORS["unet"]()
    c.discriminator = DISCRIMINATORS["unet"]()
    for network in (c.generator, c.discriminator):
        network.base_channels = 32
        # One level of 4 x 4 pixels, to which the first convolution halves the image.
        network.channel_multipliers = (1,)
        network.num_res_blocks = 1
        network.attention_resolutions = (4,)
        network.head_channels = 32
        network.dropout = 0.0
        network.updown_order = "imagen"

    c.optimizer.generator_learning_rate = 5e-4
    c.optimizer.discriminator_learning_rate = 5e-4
    c.optimizer.ema_decay = 0.997

    c.train.batch_size = 32
    c.train.num_steps = 1_500

    c.log.samples_every_steps = 500
    c.log.num_samples = 100
    c.checkpoint.save_every_steps = 500
    c.eval.metrics = "modes"
    # The customary number of Stacked MNIST.
    c.eval.num_samples = 26_000
    c.eval.features = "pixels"
    c.sampling.chunk_size = 100

    return apply_variant(c, arg, {"tiny": tiny})
