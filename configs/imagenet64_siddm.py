"""Class-conditional SIDDM on ImageNet, 64 x 64 (Xu et al. 2023).

    ddgan train --config=imagenet64_siddm --workdir=runs/imagenet64
    ddgan sample --workdir=runs/imagenet64 --labels=207,88 --seeds=0-7

Data: TFDS `imagenet_resized/64x64`.
Networks: two U-Nets of 360 M parameters each. The paper trained on TPUs.
Published result (T = 4): FID 3.13.
Measured by us: not measured.
":tiny" trains two steps of a small network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, siddm_config, tiny


def get_config(arg: str = "") -> ConfigDict:
    c = siddm_config()

    c.data.name = "imagenet_resized/64x64"
    c.data.image_size = 64
    c.data.num_classes = 1000

    c.diffusion.num_timesteps = 4
    for network in (c.generator, c.discriminator):
        network.base_channels = 256
        network.channel_multipliers = (1, 2, 3, 4)
        network.attention_resolutions = (32, 16, 8)
        network.remat_resolutions = (32, 16)
    c.optimizer.ema_decay = 0.9999
    c.train.batch_size = 2048
    # Our own choice: the paper trains "until the best FID".
    c.train.num_steps = 400_000
    c.train.mapping = "shard_map"
    # Moments and EMA, two thirds of the state, then fit small chips.
    c.train.shard_optimizer = True

    return apply_variant(c, arg, {"tiny": tiny})
