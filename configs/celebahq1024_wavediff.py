"""WaveDiff on CelebA-HQ, 1024 x 1024 (Phung et al. 2023, the official hyper-parameters).

    ddgan train --config=celebahq1024_wavediff --workdir=runs/celebahq1024_wavediff

Data: all 30,000 images of TFDS `celeb_a_hq/1024`; `ddgan prepare --dataset=celeb_a_hq/1024`
says how to make it. The published code does not say how many images its set had.
Hardware of the paper: 8 A100 GPUs of 40 GB, 4 images on each.
Published result (T = 2): FID 5.98, recall 0.39. The published weights are those of epoch 350.
Measured by us: not measured.
":tiny" trains two steps of a small 128 x 128 network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, tiny, train_for_epochs, wavediff_config


def get_config(arg: str = "") -> ConfigDict:
    c = wavediff_config()

    c.data.name = "celeb_a_hq/1024"
    c.data.split = "train"
    c.data.image_size = 1024

    c.diffusion.num_timesteps = 2
    c.diffusion.haar_order = "lh_hl"
    c.objective.r1_gamma = 2.0
    c.objective.r1_interval = 10

    c.generator.base_channels = 64
    c.generator.channel_multipliers = (1, 1, 2, 2, 4, 4)
    c.generator.num_res_blocks = 2
    # Patches of the bands, so that the levels are those of 512 pixels.
    c.generator.patch_size = 2
    # The middle alone has attention.
    c.generator.attention_resolutions = ()
    c.generator.latent_dim = 100
    c.generator.latent_embedding_dim = 256
    c.generator.latent_layers = 3
    c.discriminator.name = "large"
    c.discriminator.base_channels = 64
    c.discriminator.time_embedding_dim = 256

    # 8 GPUs with 4 images each.
    c.train.batch_size = 32
    train_for_epochs(c, 400, num_examples=30_000)  # 375,737 steps
    c.optimizer.generator_learning_rate = 2e-4
    c.optimizer.discriminator_learning_rate = 1e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999

    c.log.num_samples = 16
    c.sampling.chunk_size = 4

    return apply_variant(c, arg, {"tiny": tiny})
