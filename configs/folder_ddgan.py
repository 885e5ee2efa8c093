"""DDGAN on photos of your own: a folder of hundreds to tens of thousands of images, on one GPU.

    ddgan train --config=folder_ddgan:64 --config.data.path=photos --workdir=runs/photos

The argument is the size in pixels: 32, 64 (the default) or 128; "tiny" trains two steps on a CPU.
Data: any folder or .zip of images, or a prepared set (--config.data.name=NAME). Sub-folders do not
matter: DDGAN draws without classes. Smaller images are left out, and their number is said;
--config.data.resize=up enlarges them instead.
Hardware: one GPU. A CPU takes days at 32 pixels; with --config.generator.base_channels=32
--config.discriminator.base_channels=16 about a quarter of that.
Published result: none, the networks are our own choice: those for CIFAR-10 at half the width at 32
and 64 pixels, and those for CelebA-HQ with one level less and half as wide a discriminator at 128.
The learning rates are those of CelebA-HQ, whose batches are of the same size.
Measured by us: a step at 32 pixels takes about 6 s of one CPU core; no training to the end.
The cosine of the learning rates is as long as the training, so that
--config.train.num_steps=200000 is all that a longer one needs.
"""

from ddgan_jax.config import ConfigDict, apply_variant, base_config, tiny


def get_config(arg: str = "") -> ConfigDict:
    c = base_config()

    c.data.name = "folder"
    c.data.image_size = 64
    c.data.resize = "skip"

    # Its weight grows from 0.02 on CIFAR-10, 32 pixels, to 2 on CelebA-HQ, 256 pixels.
    c.objective.r1_gamma = 0.1

    c.generator.base_channels = 64
    c.generator.attention_resolutions = (16,)
    c.generator.latent_dim = 100
    c.generator.latent_embedding_dim = 256
    c.generator.latent_layers = 3
    c.discriminator.base_channels = 32
    c.discriminator.time_embedding_dim = 256

    c.train.batch_size = 32
    c.train.num_steps = 50_000
    c.optimizer.generator_learning_rate = 2e-4
    c.optimizer.discriminator_learning_rate = 1e-4
    c.optimizer.final_learning_rate = 1e-5
    # Half of the average comes from the last 700 steps; 0.9999 would still hold the first of them
    # after a short training.
    c.optimizer.ema_decay = 0.999

    c.log.every_steps = 50
    c.log.samples_every_steps = 1_000
    c.checkpoint.save_every_steps = 1_000

    c = apply_variant(c, arg, {"32": _32, "64": lambda c: None, "128": _128, "tiny": tiny})
    # A number made from another one follows it, also when the command line sets that later. The
    # product with 1 is of its own: setting it does not change the number of steps.
    c.optimizer.decay_steps = c.train.get_ref("num_steps") * 1
    return c


def _32(c: ConfigDict) -> None:
    c.data.image_size = 32
    c.objective.r1_gamma = 0.05


def _128(c: ConfigDict) -> None:
    c.data.image_size = 128
    c.objective.r1_gamma = 0.5
    c.generator.channel_multipliers = (1, 1, 2, 2, 4)
    c.discriminator.name = "large"
    c.train.batch_size = 16
    c.train.num_steps = 100_000
    c.log.num_samples = 36
    c.sampling.chunk_size = 36
