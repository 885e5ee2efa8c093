"""DDGAN on CIFAR-10, 32 x 32 (Xiao et al. 2022, the official hyper-parameters).

    ddgan train --config=cifar10_ddgan --workdir=runs/cifar10

Data: TFDS `cifar10`; `ddgan prepare --dataset=cifar10` says how to make it.
Hardware of the paper: 4 V100 GPUs of 32 GB, 64 images on each.
Published result (T = 4): FID 3.75, Inception Score 9.63, recall 0.57. The published weights are
those of epoch 1200.
Measured by us: not measured.
":tiny" trains two steps of a small network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, base_config, tiny, train_for_epochs


def get_config(arg: str = "") -> ConfigDict:
    c = base_config()

    c.data.name = "cifar10"
    c.data.image_size = 32

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

    # 4 GPUs with 64 images each.
    c.train.batch_size = 256
    train_for_epochs(c, 1800, num_examples=50_000)  # 351,195 steps
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.discriminator_learning_rate = 1.25e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999

    return apply_variant(c, arg, {"tiny": tiny})
