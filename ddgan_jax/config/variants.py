"""Make SIDDM's config from the base config, and tiny ones for a first try on a CPU."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from ddgan_jax.config.defaults import base_config
from ddgan_jax.config.networks import DISCRIMINATORS, GENERATORS
from ddgan_jax.config.shapes import CONVOLUTIONAL, input_shrinks, input_size, resolutions
from ddgan_jax.errors import UserError, did_you_mean, shown


def siddm_config() -> ConfigDict:
    """Return SIDDM (Xu et al. 2023) with its CIFAR-10 networks, no data set chosen.

    What the paper leaves open is decided here, each choice with its reason.
    """
    c = base_config()
    c.diffusion.schedule = "cosine"

    c.objective.joint = False
    # s is 0 for every tau < 1 / T: told tau, D judges each step by itself, and not their mixture.
    c.objective.discriminator_time = "t+1"
    # The best weight of the paper's ablation, in whichever form it had.
    c.objective.afd_weight = 1.0
    # Closest to the paper's words, "explicit L2 reconstruction"; the other forms, without C, would
    # reward a generator that does not denoise.
    c.objective.afd_form = "recon"
    # x_{t+1}, the target of the head C, follows a known law given x_t, whatever the data. C's error
    # bounds the forms "kl" and "code", not "recon": beside that it only pays a generator for hiding
    # x_{t+1}. With C the recall of the digits was 0.006, without it 0.406: docs/siddm.md.
    c.objective.afd_regression = False
    # The factor 1 / (2 beta) reaches 1e5 for the smallest tau.
    c.objective.afd_scaling = "none"
    # The paper gives no coefficient.
    c.objective.denoising_weight = 1.0
    # The regulariser R stands in for it: the paper names no gradient penalty.
    c.objective.r1_gamma = 0.0

    # z has the image's shape, since the paper's networks differ only in their input and output
    # channels; per-pixel logits for the same reason.
    c.generator = GENERATORS["unet"]()
    c.discriminator = DISCRIMINATORS["unet"]()

    c.optimizer.generator_learning_rate = 2e-4
    c.optimizer.discriminator_learning_rate = 1e-4
    # beta1 and beta2 are those of the authors' code for the 25 Gaussians.
    c.optimizer.beta2 = 0.999
    return c


def wavediff_config() -> ConfigDict:
    """Return WaveDiff (Phung et al. 2023), with its generator for 64 pixels on, no data set chosen.

    The configs of published runs have the order of the bands of the published weights; a run of
    one's own may have either.
    """
    c = base_config()
    c.diffusion.space = "haar"
    c.objective.reconstruction_weight = 1.0
    c.generator = GENERATORS["wavelet"]()
    return c


def train_for_epochs(config: ConfigDict, num_epochs: int, num_examples: int) -> None:
    """Set the length of the training and of the learning rates' decay, in place, as published.

    The published programs count epochs: the rates follow a cosine over num_epochs of them, change
    after each, and one more epoch is trained at the final rate. Of each epoch the incomplete batch
    is dropped. Reads config.train.batch_size.
    """
    steps_per_epoch = num_examples // config.train.batch_size
    config.train.num_steps = (num_epochs + 1) * steps_per_epoch
    config.optimizer.decay_interval_steps = steps_per_epoch
    config.optimizer.decay_steps = num_epochs * steps_per_epoch


def apply_variant(
    config: ConfigDict, argument: str, variants: Mapping[str, Callable[[ConfigDict], None]]
) -> ConfigDict:
    """Return the config, changed in place by the variant that a config file's argument names.

    "" is the config itself. Raises UserError for a name that is not among `variants`.
    """
    if argument:
        if argument not in variants:
            message = f"config argument {shown(repr(argument))} is not known"
            message += did_you_mean(argument, variants) or f"; known: {', '.join(variants)}"
            raise UserError(message)
        variants[argument](config)
    return config


def tiny(config: ConfigDict) -> None:
    """Shrink a config, in place, to two train steps in seconds on a CPU; kinds of networks stay."""
    config.data.image_size = min(config.data.image_size, 32)
    if config.discriminator.name == "large":
        # It halves the resolution many times and cannot take fewer pixels.
        blocks = CONVOLUTIONAL["large"].first(config.discriminator.num_blocks)
        config.data.image_size = blocks.factor * input_shrinks(config, "discriminator")
    for role in ("generator", "discriminator"):
        network, size = config[role], input_size(config, role)
        network.update({k: v for k, v in _TINY[network.name].items() if k in network})
        if "attention_resolutions" in network:
            # The second of the two levels keeps attention, so that a first try compiles it as well.
            network.attention_resolutions = (size // 2,)
        if "remat_resolutions" in network:
            there = resolutions(network, size)
            network.remat_resolutions = tuple(p for p in network.remat_resolutions if p in there)
    # Every step computes the penalty: one program to compile instead of two.
    config.objective.r1_interval = 1
    config.train.batch_size = 8
    config.train.num_steps = 2
    # A schedule of 0 steps, a constant rate, stays one.
    config.optimizer.decay_steps = min(config.optimizer.decay_steps, 2)
    config.optimizer.decay_interval_steps = 1
    config.log.every_steps = 1
    config.log.samples_every_steps = 2
    config.log.num_samples = 4
    config.checkpoint.save_every_steps = 2
    config.eval.every_steps = 0
    config.sampling.chunk_size = 4


_TINY_CONVOLUTIONAL = {"base_channels": 4, "time_embedding_dim": 16}
_TINY_NCSNPP = {
    "base_channels": 8,
    "channel_multipliers": (1, 2),
    "num_res_blocks": 1,
    "latent_dim": 8,
    "latent_embedding_dim": 16,
    "latent_layers": 1,
}
_TINY = {
    "ncsnpp": _TINY_NCSNPP,
    "wavelet": _TINY_NCSNPP,
    "unet": {
        "base_channels": 32,
        "channel_multipliers": (1, 1),
        "num_res_blocks": 1,
        "head_channels": 16,
    },
    "mlp": {"width": 16, "hidden_layers": 1, "time_embedding_dim": 8},
    "small": _TINY_CONVOLUTIONAL,
    "large": _TINY_CONVOLUTIONAL,
}
