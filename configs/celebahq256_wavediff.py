"""WaveDiff on CelebA-HQ, 256 x 256 (Phung et al. 2023, the official hyper-parameters).

    ddgan train --config=celebahq256_wavediff --workdir=runs/celebahq256_wavediff

Data: TFDS `celeb_a_hq/256`, of which the first 27,000 images are trained on, as many as in the
paper (whose split assigns others); `ddgan prepare --dataset=celeb_a_hq/256` says how to make it.
Hardware of the paper: 2 A100 GPUs of 40 GB, 32 images on each.
Published result (T = 2): FID 5.94, recall 0.37. The published weights are those of epoch 475.
Measured by us: not measured.
":tiny" trains two steps of a small 64 x 64 network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, tiny, train_for_epochs, wavediff_config


def get_config(arg: str = "") -> ConfigDict:
    c = wavediff_config()

    c.data.name = "celeb_a_hq/256"
    c.data.split = "train[:27000]"
    c.data.image_size = 256

    c.diffusion.num_timesteps = 2
    c.diffusion.haar_order = "lh_hl"
    c.objective.r1_gamma = 2.0
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

    # 2 GPUs with 32 images each.
    c.train.batch_size = 64
    train_for_epochs(c, 500, num_examples=27_000)  # 210,921 steps
    c.optimizer.generator_learning_rate = 2e-4
    c.optimizer.discriminator_learning_rate = 1e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999

    c.log.num_samples = 16
    c.sampling.chunk_size = 16

    return apply_variant(c, arg, {"tiny": tiny})
