"""DDGAN on MNIST at 32 x 32: a real set with networks small enough for a CPU.

    ddgan prepare --dataset=mnist --download
    ddgan train --config=mnist_ddgan --workdir=runs/mnist

Data: the 60,000 training digits of TFDS `mnist`, padded from 28 to 32 pixels with black.
Hardware: any; a CPU can train it in pieces, since a run that was stopped goes on with the same
command.
Published result: none, the networks are our own choice: the paper's NCSN++ with 0.98 M parameters
instead of 48 M, and the discriminator with 0.21 M.
Measured by us: docs/results.md.
":tiny" trains two steps of a smaller network.
"""

from ddgan_jax.config import ConfigDict, apply_variant, base_config, tiny


def get_config(arg: str = "") -> ConfigDict:
    c = base_config()

    c.data.name = "mnist"
    c.data.image_size = 32
    c.data.channels = 1
    # Three levels can halve 32 pixels, and only two 28; the digits lie on black already.
    c.data.resize = "pad"
    # A mirrored 2 is no digit.
    c.data.flip = False

    c.diffusion.num_timesteps = 4
    c.objective.r1_gamma = 0.5
    c.objective.r1_interval = 5

    # Wide levels are small ones: a convolution costs most at full resolution.
    c.generator.base_channels = 16
    c.generator.channel_multipliers = (1, 1, 2, 4)
    c.generator.num_res_blocks = 1
    c.generator.attention_resolutions = (8,)
    # The filter takes time at every resampling, and strokes are sharp.
    c.generator.fir = False
    c.generator.latent_dim = 50
    c.generator.latent_embedding_dim = 64
    c.generator.latent_layers = 3
    c.discriminator.name = "small"
    c.discriminator.base_channels = 8
    c.discriminator.time_embedding_dim = 64

    # Higher rates and a shorter average than published, for a training of far fewer steps.
    c.optimizer.generator_learning_rate = 4e-4
    c.optimizer.discriminator_learning_rate = 4e-4
    c.optimizer.ema_decay = 0.999

    c.train.batch_size = 32
    c.train.num_steps = 15_000  # 8 epochs
    c.optimizer.final_learning_rate = 2e-5

    c.log.every_steps = 50
    c.log.samples_every_steps = 500
    c.log.num_samples = 100
    c.checkpoint.save_every_steps = 250
    c.eval.every_steps = 2_500
    c.eval.num_samples = 2_000
    c.eval.features = "classifier"
    c.sampling.chunk_size = 100

    c = apply_variant(c, arg, {"tiny": tiny})
    # As in folder_ddgan: the cosine follows the length of the training, however that is set.
    c.optimizer.decay_steps = c.train.get_ref("num_steps") * 1
    return c
