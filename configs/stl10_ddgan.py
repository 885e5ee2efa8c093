"""DDGAN on STL-10, 64 x 64: the baseline that WaveDiff trained.

    ddgan train --config=stl10_ddgan --workdir=runs/stl10

Data: the 100,000 unlabelled images of TFDS `stl10`, resized from 96 to 64 pixels;
`ddgan prepare --dataset=stl10` says how to make it.
The DDGAN paper does not use this set. The settings are those with which the authors of WaveDiff
(Phung et al. 2023, arXiv 2211.16152; `run_ddgan.sh` of VinAIResearch/WaveDiff) trained DDGAN as a
baseline: its CIFAR-10 networks on 64 pixels, a batch of 128. The script does not name the
discriminator; that code means this set to have the small one, as here, but misspells the set in
the version that we read, where the large one results.
Hardware of that paper: one A100 GPU of 40 GB.
Published result: FID 12.93 and recall 0.41 for WaveDiff itself, which is another network.
Measured by us: not measured.
":tiny" trains two steps of a small 32 x 32 network on a CPU.
"""

from ddgan_jax.config import ConfigDict, apply_variant, base_config, tiny, train_for_epochs


def get_config(arg: str = "") -> ConfigDict:
    c = base_config()

    c.data.name = "stl10"
    c.data.split = "unlabelled"
    c.data.image_size = 64

    c.diffusion.num_timesteps = 4
    c.objective.r1_gamma = 0.02
    c.objective.r1_interval = 15

    c.generator.base_channels = 128
    c.generator.channel_multipliers = (1, 2, 2, 2)
    c.generator.num_res_blocks = 2
    c.generator.attention_resolutions = (16,)
    c.generator.latent_dim = 100
    c.generator.latent_embedding_dim = 256
    c.generator.latent_layers = 4
    c.discriminator.name = "small"
    c.discriminator.base_channels = 64
    c.discriminator.time_embedding_dim = 256

    # The schedule counts epochs: the rate follows a cosine over 1800 of them, changes after each,
    # and one more is trained at the final rate.
    c.train.batch_size = 128
    train_for_epochs(c, 1800, num_examples=100_000)  # 1,406,581 steps
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.discriminator_learning_rate = 1.25e-4
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999

    return apply_variant(c, arg, {"tiny": tiny})
