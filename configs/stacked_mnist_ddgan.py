"""DDGAN on stacked MNIST: three digits as the colours of one image, 1,000 modes to cover.

    ddgan train --config=stacked_mnist_ddgan --workdir=runs/stacked_mnist

Data: 120,000 random triples of TFDS `mnist`, padded to 32 x 32, the label is the number that the
digits spell; `ddgan prepare --dataset=mnist` says how to make it.
Hardware of the paper: not stated for this set.
Published result (T = 4): all 1,000 modes, KL divergence 0.071.
No command is published for this set: networks, rates and R1 are those of CIFAR-10, the number of
epochs is our own choice.
Measured by us: not measured.
":tiny" trains two steps of a small network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, base_config, tiny, train_for_epochs


def get_config(arg: str = "") -> ConfigDict:
    c = base_config()

    c.data.name = "stacked_mnist"
    c.data.image_size = 32
    # Mirrored digits are no digits.
    c.data.flip = False

    c.diffusion.num_timesteps = 4
    c.objective.r1_gamma = 0.02
    c.objective.r1_interval = 15

    c.generator.base_channels = 128
    c.generator.channel_multipliers = (1, 2, 2, 2)
    c.generator.num_res_blocks = 2
    c.generator.attention_resolutions = (16,)
    c.generator.latent_dim = 100
    c.generator.latent_embedding_dim = 256
    c.generator.latent_layers = 4
    c.discriminator.name = "small"
    c.discriminator.base_channels = 64
    c.discriminator.time_embedding_dim = 256

    c.train.batch_size = 256
    train_for_epochs(c, 200, num_examples=120_000)  # 94,068 steps
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.discriminator_learning_rate = 1.25e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999

    return apply_variant(c, arg, {"tiny": tiny})
