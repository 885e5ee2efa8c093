"""SIDDM on CIFAR-10, 32 x 32 (Xu et al. 2023).

    ddgan train --config=cifar10_siddm --workdir=runs/cifar10_siddm

Data: TFDS `cifar10`; `ddgan prepare --dataset=cifar10` says how to make it.
Networks: two U-Nets of 151 M parameters each. The paper trained on TPUs.
Published result (T = 4): FID 2.24, Inception Score 9.85, recall 0.61.
Measured by us: not measured.
":tiny" trains two steps of a small network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, siddm_config, tiny


def get_config(arg: str = "") -> ConfigDict:
    c = siddm_config()

    c.data.name = "cifar10"
    c.data.image_size = 32

    # Widths, attention and rates are those of siddm_config.
    c.diffusion.num_timesteps = 4
    c.optimizer.ema_decay = 0.9999
    c.train.batch_size = 256
    # Our own choice: the paper trains "until the best FID".
    c.train.num_steps = 400_000

    return apply_variant(c, arg, {"tiny": tiny})
