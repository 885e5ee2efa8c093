"""DDGAN on 8 x 8 handwritten digits: the whole method in minutes on a laptop's CPU.

    ddgan train --config=digits_ddgan --workdir=runs/digits

Data: 1,797 gray digits, which are in the package; no download.
Hardware: any; about two CPU cores. Published result: none, the networks are our own choice.
Measured by us, on two cores of a virtual machine: 2,400 steps in about 4 min, compilation included;
eval/frechet_pixels_1000 is 7.3, 6.3, 3.4, 2.1 after 600, 1,200, 1,800, 2,400 steps.
":tiny" trains two steps of a smaller network.
"""

from ddgan_jax.config import ConfigDict, apply_variant, base_config, tiny


def get_config(arg: str = "") -> ConfigDict:
    c = base_config()

    c.data.name = "digits"
    c.data.image_size = 8
    c.data.channels = 1
    # A mirrored 2 is no digit.
    c.data.flip = False

    # Two steps and less noise than for larger images: 64 pixels repeat little of what they show, so
    # that much noise leaves the discriminator nothing to tell apart.
    c.diffusion.num_timesteps = 2
    c.diffusion.beta_max = 9.0
    c.objective.r1_gamma = 0.5
    # One program to compile instead of two.
    c.objective.r1_interval = 1

    c.generator.base_channels = 16
    c.generator.channel_multipliers = (1, 2)
    c.generator.num_res_blocks = 1
    c.generator.attention_resolutions = (4,)
    # The filter blurs what eight pixels hold.
    c.generator.fir = False
    c.generator.latent_dim = 16
    c.generator.latent_embedding_dim = 64
    c.generator.latent_layers = 2
    c.discriminator.name = "small"
    c.discriminator.base_channels = 16
    c.discriminator.time_embedding_dim = 64

    c.optimizer.generator_learning_rate = 3e-4
    c.optimizer.discriminator_learning_rate = 1e-3
    c.optimizer.ema_decay = 0.997

    c.train.batch_size = 32
    c.train.num_steps = 2_400

    c.log.samples_every_steps = 600
    c.log.num_samples = 100
    c.checkpoint.save_every_steps = 300
    c.eval.every_steps = 600
    c.eval.num_samples = 1_000
    # Enough for so few pixels, and no network has to be trained first.
    c.eval.features = "pixels"
    c.sampling.chunk_size = 100

    return apply_variant(c, arg, {"tiny": tiny})
