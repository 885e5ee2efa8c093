"""WaveDiff on 8 x 8 handwritten digits: DDGAN on 4 x 4 Haar bands, in minutes on one CPU core.

    ddgan train --config=digits_wavediff --workdir=runs/digits_wavediff

Data: 1,797 gray digits, which are in the package; no download.
Hardware: any; about two CPU cores. Published result: none, the networks are our own choice.
Measured by us, on one core of a virtual machine: a step takes 38 ms of CPU time, that of
digits_ddgan 99 ms; eval/frechet_pixels_1000 is 14.1, 5.9, 3.6, 2.8 after 600, 1,200, 1,800, 2,400
steps, and 1.7 after 4,200.
":tiny" trains two steps of a smaller network.
"""

from ddgan_jax.config import ConfigDict, apply_variant, tiny, wavediff_config


def get_config(arg: str = "") -> ConfigDict:
    c = wavediff_config()

    c.data.name = "digits"
    c.data.image_size = 8
    c.data.channels = 1
    # A mirrored 2 is no digit.
    c.data.flip = False

    # As digits_ddgan. The bands, half as large as orthonormal ones, lie deeper in the same noise.
    c.diffusion.num_timesteps = 2
    c.diffusion.beta_max = 9.0
    c.objective.r1_gamma = 0.5
    # One program to compile instead of two.
    c.objective.r1_interval = 1

    c.generator.base_channels = 16
    c.generator.channel_multipliers = (1, 2)
    c.generator.num_res_blocks = 1
    # The middle alone has attention, at 2 x 2 pixels.
    c.generator.attention_resolutions = ()
    c.generator.latent_dim = 16
    c.generator.latent_embedding_dim = 64
    c.generator.latent_layers = 2
    c.discriminator.name = "small"
    # Its last map has one pixel.
    c.discriminator.num_blocks = 3
    c.discriminator.base_channels = 16
    c.discriminator.time_embedding_dim = 64

    c.optimizer.generator_learning_rate = 3e-4
    c.optimizer.discriminator_learning_rate = 1e-3
    c.optimizer.ema_decay = 0.997

    c.train.batch_size = 32
    c.train.num_steps = 4_800

    c.log.samples_every_steps = 600
    c.log.num_samples = 100
    c.checkpoint.save_every_steps = 300
    c.eval.every_steps = 600
    c.eval.num_samples = 1_000
    # Enough for so few pixels, and no network has to be trained first.
    c.eval.features = "pixels"
    c.sampling.chunk_size = 100

    return apply_variant(c, arg, {"tiny": tiny})
