"""SIDDM on CelebA-HQ, 256 x 256, in two steps (Xu et al. 2023).

    ddgan train --config=celebahq256_siddm --workdir=runs/celebahq256_siddm

Data: TFDS `celeb_a_hq/256`, which asks for a manual download.
Networks: two U-Nets of 220 M parameters each. The paper trained on TPUs.
Published result (T = 2): FID 7.37.
Measured by us: not measured.
":tiny" trains two steps of a small network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, siddm_config, tiny


def get_config(arg: str = "") -> ConfigDict:
    c = siddm_config()

    c.data.name = "celeb_a_hq/256"
    c.data.image_size = 256

    c.diffusion.num_timesteps = 2
    for network in (c.generator, c.discriminator):
        network.base_channels = 192
        network.channel_multipliers = (1, 1, 2, 3, 4)
        network.attention_resolutions = (32, 16, 8)
        # Of the levels whose activations are the largest.
        network.remat_resolutions = (128, 64)
    c.optimizer.ema_decay = 0.9999
    c.train.batch_size = 128
    # Our own choice: the paper trains "until the best FID".
    c.train.num_steps = 400_000
    c.train.mapping = "shard_map"
    # Moments and EMA, two thirds of the state, then fit small chips.
    c.train.shard_optimizer = True
    c.sampling.chunk_size = 16

    return apply_variant(c, arg, {"tiny": tiny})
