"""DDGAN on CelebA-HQ, 256 x 256 (Xiao et al. 2022, the official hyper-parameters).

    ddgan train --config=celebahq256_ddgan --workdir=runs/celebahq256

Data: TFDS `celeb_a_hq/256`, of which the first 27,000 images are trained on, as many as in the
paper (whose split assigns others); `ddgan prepare --dataset=celeb_a_hq/256` says how to make it.
Hardware of the paper: 8 V100 GPUs of 32 GB, 4 images on each.
Published result (T = 2): FID 7.64. The published weights are those of epoch 550.
Measured by us: not measured.
":tiny" trains two steps of a small 64 x 64 network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, base_config, tiny, train_for_epochs


def get_config(arg: str = "") -> ConfigDict:
    c = base_config()

    c.data.name = "celeb_a_hq/256"
    c.data.split = "train[:27000]"
    c.data.image_size = 256

    c.diffusion.num_timesteps = 2
    c.objective.r1_gamma = 2.0
    c.objective.r1_interval = 10

    c.generator.base_channels = 64
    c.generator.channel_multipliers = (1, 1, 2, 2, 4, 4)
    c.generator.num_res_blocks = 2
    c.generator.attention_resolutions = (16,)
    c.generator.latent_dim = 100
    c.generator.latent_embedding_dim = 256
    c.generator.latent_layers = 3
    c.discriminator.name = "large"
    c.discriminator.base_channels = 64
    c.discriminator.time_embedding_dim = 256

    # 8 GPUs with 4 images each.
    c.train.batch_size = 32
    train_for_epochs(c, 800, num_examples=27_000)  # 675,243 steps
    c.optimizer.generator_learning_rate = 2e-4
    c.optimizer.discriminator_learning_rate = 1e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999

    c.log.num_samples = 16
    c.sampling.chunk_size = 16

    return apply_variant(c, arg, {"tiny": tiny})
