"""WaveDiff on STL-10, 64 x 64 (Phung et al. 2023, the official hyper-parameters).

    ddgan train --config=stl10_wavediff --workdir=runs/stl10_wavediff

Data: the 100,000 unlabelled images of TFDS `stl10`, resized from 96 to 64 pixels;
`ddgan prepare --dataset=stl10` says how to make it.
Hardware of the paper: one A100 GPU of 40 GB.
Published result (T = 4): FID 12.93, recall 0.41. The published weights are those of epoch 600.
Measured by us: not measured.
":tiny" trains two steps of a small 32 x 32 network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, tiny, train_for_epochs, wavediff_config


def get_config(arg: str = "") -> ConfigDict:
    c = wavediff_config()

    c.data.name = "stl10"
    c.data.split = "unlabelled"
    c.data.image_size = 64

    c.diffusion.num_timesteps = 4
    c.diffusion.haar_order = "hl_lh"
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
    train_for_epochs(c, 900, num_examples=100_000)  # 351,390 steps
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.discriminator_learning_rate = 1.25e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999

    return apply_variant(c, arg, {"tiny": tiny})
