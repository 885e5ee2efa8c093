"""WaveDiff on LSUN church outdoor, 256 x 256 (Phung et al. 2023, the official hyper-parameters).

    ddgan train --config=lsun_church256_wavediff --workdir=runs/lsun_church256_wavediff

Data: TFDS `lsun/church_outdoor`, the first 120,000 images as in the paper;
`ddgan prepare --dataset=lsun/church_outdoor` says how to make it.
Hardware of the paper: 4 A100 GPUs of 40 GB, 16 images on each.
Published result (T = 4): FID 5.06, recall 0.40. The published weights are those of epoch 400.
Measured by us: not measured.
":tiny" trains two steps of a small 64 x 64 network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, tiny, train_for_epochs
from ddgan_jax.configs import celebahq256_wavediff


def get_config(arg: str = "") -> ConfigDict:
    # The networks are those of CelebA-HQ.
    c = celebahq256_wavediff.get_config()

    c.data.name = "lsun/church_outdoor"
    c.data.split = "train[:120000]"

    c.diffusion.num_timesteps = 4
    c.diffusion.haar_order = "hl_lh"
    c.objective.r1_gamma = 1.0

    # 4 GPUs with 16 images each.
    c.train.batch_size = 64
    train_for_epochs(c, 500, num_examples=120_000)  # 939,375 steps
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.ema_decay = 0.999

    return apply_variant(c, arg, {"tiny": tiny})
