"""Class-conditional SIDDM on 8 x 8 handwritten digits: minutes on a laptop's CPU.

    ddgan train --config=digits_siddm --workdir=runs/digits_siddm
    ddgan sample --workdir=runs/digits_siddm --labels=all --seeds=0-9

Data: 1,797 gray digits, which are in the package; no download.
Hardware: any; about two CPU cores. Published result: none, the networks are our own choice.
Measured by us, on two cores of a virtual machine that did other work besides: 1,500 steps in six
minutes; every class legible from about 1,000 steps on. docs/siddm.md compares the forms of the
loss.
":tiny" trains two steps of a smaller network.
"""

from ddgan_jax.config import ConfigDict, apply_variant, siddm_config, tiny


def get_config(arg: str = "") -> ConfigDict:
    c = siddm_config()

    c.data.name = "digits"
    c.data.image_size = 8
    c.data.channels = 1
    c.data.num_classes = 10
    # A mirrored 2 is no digit.
    c.data.flip = False

    c.diffusion.num_timesteps = 2
    for network in (c.generator, c.discriminator):
        network.base_channels = 32
        network.channel_multipliers = (1, 1)
        network.num_res_blocks = 1
        network.attention_resolutions = (4,)
        network.head_channels = 32
        network.dropout = 0.0
        # Eight pixels leave nothing to halve before the first block.
        network.updown_order = "adm"

    c.optimizer.generator_learning_rate = 5e-4
    c.optimizer.discriminator_learning_rate = 5e-4
    c.optimizer.ema_decay = 0.997

    c.train.batch_size = 32
    c.train.num_steps = 1_500

    c.log.samples_every_steps = 500
    c.log.num_samples = 100
    c.checkpoint.save_every_steps = 500
    c.sampling.chunk_size = 100

    return apply_variant(c, arg, {"tiny": tiny})
