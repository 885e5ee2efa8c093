"""WaveDiff on LSUN church outdoor, 256 x 256 (Phung et al. 2023, the official hyper-parameters).

    ddgan train --config=lsun_church256_wavediff --workdir=runs/lsun_church256_wavediff

Data: TFDS `lsun/church_outdoor`, the first 120,000 images as in the paper;
`ddgan prepare --dataset=lsun/church_outdoor` says how to make it.
Hardware of the paper: 4 A100 GPUs of 40 GB, 16 images on each.
Published result (T = 4): FID 5.06, recall 0.40. The published weights are those of epoch 400.
Measured by us: not measured.
":tiny" trains two steps of a small 64 x 64 network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, tiny, train_for_epochs, wavediff_config


def get_config(arg: str = "") -> ConfigDict:
    c = wavediff_config()

    c.data.name = "lsun/church_outdoor"
    c.data.split = "train[:120000]"
    c.data.image_size = 256

    c.diffusion.num_timesteps = 4
    c.diffusion.haar_order = "hl_lh"
    c.objective.r1_gamma = 1.0
    c.objective.r1_interval = 10

    c.generator.base_channels = 64
    c.generator.channel_multipliers = (1, 2, 2, 2, 4)
    c.generator.num_res_blocks = 2
    c.generator.attention_resolutions = (16,)
    c.generator.latent_dim = 100
    c.generator.latent_embedding_dim = 256
    c.generator.latent_layers = 3
    c.discriminator.name = "large"
    # Its last map has 4 x 4 pixels.
    c.discriminator.num_blocks = 5
    c.discriminator.base_channels = 64
    c.discriminator.time_embedding_dim = 256

    # 4 GPUs with 16 images each.
    c.train.batch_size = 64
    train_for_epochs(c, 500, num_examples=120_000)  # 939,375 steps
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.discriminator_learning_rate = 1e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.999

    c.log.num_samples = 16
    c.sampling.chunk_size = 16

    return apply_variant(c, arg, {"tiny": tiny})
