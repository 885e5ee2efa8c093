"""WaveDiff on CIFAR-10, 32 x 32 (Phung et al. 2023, the official hyper-parameters).

    ddgan train --config=cifar10_wavediff --workdir=runs/cifar10_wavediff

The Haar bands of an image are 16 x 16, which is too small for the generator with Haar transforms:
the paper takes DDGAN's here.
Data: TFDS `cifar10`; `ddgan prepare --dataset=cifar10` says how to make it.
Hardware of the paper: one A100 GPU of 40 GB.
Published result (T = 4): FID 4.01, recall 0.55. The published weights are those of epoch 1300.
Measured by us: not measured.
":tiny" trains two steps of a small network on a CPU.
"""

from ddgan_jax.config import (
    GENERATORS,
    ConfigDict,
    apply_variant,
    tiny,
    train_for_epochs,
    wavediff_config,
)


def get_config(arg: str = "") -> ConfigDict:
    c = wavediff_config()

    c.data.name = "cifar10"
    c.data.image_size = 32

    c.diffusion.num_timesteps = 4
    c.diffusion.haar_order = "hl_lh"
    c.objective.r1_gamma = 0.02
    c.objective.r1_interval = 15

    c.generator = GENERATORS["ncsnpp"]()
    c.generator.base_channels = 128
    c.generator.channel_multipliers = (1, 2, 2)
    c.generator.num_res_blocks = 2
    # The middle alone has attention.
    c.generator.attention_resolutions = ()
    c.generator.latent_dim = 100
    c.generator.latent_embedding_dim = 256
    c.generator.latent_layers = 4
    c.discriminator.name = "small"
    c.discriminator.num_blocks = 3
    c.discriminator.base_channels = 64
    c.discriminator.time_embedding_dim = 256

    c.train.batch_size = 256
    train_for_epochs(c, 1800, num_examples=50_000)  # 351,195 steps
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.discriminator_learning_rate = 1.25e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999

    return apply_variant(c, arg, {"tiny": tiny})
