"""WaveDiff on CelebA-HQ, 1024 x 1024 (Phung et al. 2023, the official hyper-parameters).

    ddgan train --config=celebahq1024_wavediff --workdir=runs/celebahq1024_wavediff

Data: all 30,000 images of TFDS `celeb_a_hq/1024`; `ddgan prepare --dataset=celeb_a_hq/1024`
says how to make it. The published code does not say how many images its set had.
Hardware of the paper: 8 A100 GPUs of 40 GB, 4 images on each.
Published result (T = 2): FID 5.98, recall 0.39. The published weights are those of epoch 350.
Measured by us: not measured.
":tiny" trains two steps of a small 128 x 128 network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, tiny
from ddgan_jax.configs import celebahq512_wavediff


def get_config(arg: str = "") -> ConfigDict:
    c = celebahq512_wavediff.get_config()

    c.data.name = "celeb_a_hq/1024"
    c.data.image_size = 1024

    c.diffusion.haar_order = "lh_hl"
    # Patches of the bands, so that the levels are those of 512 pixels.
    c.generator.patch_size = 2
    # The middle alone has attention.
    c.generator.attention_resolutions = ()

    return apply_variant(c, arg, {"tiny": tiny})
