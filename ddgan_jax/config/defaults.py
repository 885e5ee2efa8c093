"""Every setting of a run: its default and its unit.

`base_config` and `siddm_config` are the two methods with the networks of their papers, whose
fields are defined here, each once; a file in configs/ changes what its experiment needs, the
command line changes single fields (`--config.train.batch_size=64`). `validation.validate` refuses
settings that cannot work before anything is compiled. The resolved config is written to the run
folder and travels in every checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from ddgan_jax.errors import UserError, did_you_mean, shown

ConfigDict = ml_collections.ConfigDict

# No number of a config or a flag is above it: sizes, counts and steps are int32 on the devices.
LARGEST = 2**31 - 1
MOST_IMAGES = 10_000_000  # that one command draws: what is known of each of them is held in memory
MOST_TIMESTEPS = 10_000  # ten times those of the diffusion models that need the most
LARGEST_IMAGE = 8192  # pixels

# Fields that name places on somebody's machine, which is nobody else's business; those that come
# with an export are not looked at.
LOCAL_PATHS = ("data.dir", "data.path", "eval.inception")


def base_config() -> ConfigDict:
    """Return all fields with their defaults: DDGAN's networks for CIFAR-10, no data set chosen."""
    c = ConfigDict()

    c.data = ConfigDict()
    c.data.name = ""  # "cifar10" or any other name in TFDS, or one of data.catalog.OWN
    c.data.split = "train"  # split or slice in TFDS syntax, e.g. "train[:90%]"
    c.data.dir = ""  # where prepared sets lie; "" = $TFDS_DATA_DIR, else ~/tensorflow_datasets
    c.data.path = ""  # the images of data.name = "folder": PNG/JPEG files, one sub-folder per class
    c.data.image_size = 32  # pixels; larger images are resized (shorter side) and centre-cropped
    c.data.channels = 3  # 1 gray, 3 RGB; 2 coordinates of the toy sets, whose image_size is 1
    c.data.num_classes = 0  # > 0: the networks are told each image's class; 0: they are not
    c.data.max_examples = 0  # use only the first so many examples; 0 = all
    c.data.flip = True  # mirror each image with probability 1/2, inside the train step
    c.data.memory_limit_mib = 4096  # sets that fit are decoded once into RAM, others while training
    c.data.decode_threads = 8  # threads that read and decode a set that is not in RAM

    c.diffusion = ConfigDict()
    c.diffusion.schedule = "vp"  # "vp", "geometric", continuous "cosine", or "one_shot"
    c.diffusion.num_timesteps = 4  # T, denoising steps; "cosine" trains on steps of length 1 / T
    c.diffusion.beta_min = 0.1  # of "vp" and "geometric"; the latter needs 0 < min < max < 1
    c.diffusion.beta_max = 20.0

    c.objective = ConfigDict()
    c.objective.prediction = "x_0"  # the generator's output: "x_0", "x_t" (direct) or "noise"
    c.objective.judged = "x_t"  # what the discriminator judges: the denoised "x_t", or "x_0"
    c.objective.joint = True  # the discriminator also sees x_{t+1}: DDGAN; False: SIDDM
    c.objective.discriminator_time = "t+1"  # of a continuous schedule: told that of "t" or "t+1"
    c.objective.adversarial_weight = 1.0  # in the generator's loss; 0 = AFD alone
    c.objective.afd_weight = 0.0  # lambda, auxiliary forward diffusion; 0 = without
    c.objective.afd_form = "recon"  # its cross entropy: "recon", "kl" or "code"
    c.objective.afd_regression = True  # with the regression head C
    c.objective.afd_scaling = "none"  # "none", or "likelihood": divided by 2 beta
    c.objective.denoising_weight = 0.0  # of the regulariser R: D also denoises real images
    c.objective.augmentation_timesteps = 0  # > 0, T = 1: D's inputs diffused to so many levels
    c.objective.r1_gamma = 0.02  # weight of R1 (times 1/2), not scaled by the interval
    c.objective.r1_interval = 15  # steps between R1 penalties; 1 = every step

    c.generator = GENERATORS["ncsnpp"]()
    c.discriminator = DISCRIMINATORS["small"]()

    c.optimizer = ConfigDict()
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.discriminator_learning_rate = 1.25e-4
    c.optimizer.beta1 = 0.5
    c.optimizer.beta2 = 0.9
    c.optimizer.decay_steps = 0  # of the cosine to the final rate, which then stays; 0 = constant
    c.optimizer.decay_interval_steps = 1  # the cosine is a staircase with treads of so many steps
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999  # per step, of the generator's parameters

    c.train = ConfigDict()
    c.train.batch_size = 256  # images per step, over all devices
    c.train.microbatches = 1  # parts of a device's batch whose gradients are added up in turn
    c.train.num_steps = 400_000  # train steps
    c.train.seed = 0  # of everything: initial parameters, data order, noise
    c.train.compute_dtype = "float32"  # of activations: "float32" or "bfloat16"
    c.train.mapping = "pmap"  # how the step is mapped over devices: "pmap" or "shard_map"
    c.train.shard_optimizer = False  # each device keeps a part of Adam's moments and of the EMA

    c.log = ConfigDict()
    c.log.every_steps = 100  # steps between lines of metrics
    c.log.samples_every_steps = 5_000  # steps between grids of samples
    c.log.num_samples = 64  # images in a grid, always of the seeds 0, 1, 2, ...

    c.checkpoint = ConfigDict()
    c.checkpoint.save_every_steps = 5_000
    c.checkpoint.keep_latest = 2  # newest checkpoints kept
    c.checkpoint.keep_every_steps = 0  # also keep those at multiples of this; 0 = none

    # Numbers of the averaged parameters during the run, and the best checkpoint by one of them.
    c.eval = ConfigDict()
    c.eval.every_steps = 0  # steps between evaluations, the last one at the end; 0 = none
    c.eval.num_samples = 5_000  # images drawn for each, always of the seeds 0, 1, 2, ...
    c.eval.metrics = "frechet"  # as in `ddgan evaluate --metrics`, e.g. "fid,prdc"
    c.eval.features = "classifier"  # "inception" (of "fid", "is", "kid"), "classifier" or "pixels"
    c.eval.protocol = "tf1"  # of "inception": "tf1" or "pytorch_fid"
    c.eval.inception = ""  # file of its weights; "" = the one in the cache folder
    c.eval.best = "frechet"  # number that chooses the checkpoint in WORKDIR/best; "" = none

    c.sampling = ConfigDict()
    c.sampling.chunk_size = 64  # images per device in one call of the compiled sampler
    c.sampling.num_steps = 0  # denoising steps; 0 = diffusion.num_timesteps, else "cosine" only

    return c


def _ncsnpp() -> ConfigDict:
    """Return the fields of DDGAN's generator."""
    g = ConfigDict()
    g.name = "ncsnpp"
    g.base_channels = 128  # channels at full resolution
    g.channel_multipliers = (1, 2, 2, 2)  # one level per entry, each half the resolution
    g.num_res_blocks = 2  # per level
    g.attention_resolutions = (16,)  # pixels
    g.dropout = 0.0  # probability
    g.resblock = "biggan"  # "ddpm", "biggan" or "biggan_oneadagn"
    g.progressive = "none"  # output pyramid: "none", "output_skip" or "residual"
    g.progressive_input = "residual"  # input pyramid: "none", "input_skip" or "residual"
    g.progressive_combine = "sum"  # how input_skip joins: "sum" or "cat"
    g.resample_with_conv = True  # in the down- and up-sampling of resblock "ddpm"
    g.fir = True  # FIR filter when resampling; False: 2x2 mean and nearest neighbour
    g.fir_kernel = (1.0, 3.0, 3.0, 1.0)  # taps, normalised to sum 1
    g.skip_rescale = True  # divide residual sums by sqrt(2)
    g.time_embedding = "positional"  # or "fourier", of log(t): undefined at t = 0
    g.fourier_scale = 16.0  # standard deviation of the fourier frequencies
    g.time_conditional = True  # False: the network does not see t
    g.centered = True  # False: inputs lie in [0, 1] and are mapped to [-1, 1] first
    g.output_tanh = True
    g.latent = "normal"  # "normal" or "none" (z = 0: a unimodal denoising distribution)
    g.latent_dim = 100  # entries of z
    g.latent_embedding_dim = 256  # width of the latent mapping
    g.latent_layers = 3  # hidden layers of the latent mapping after its first
    return g


def _convolutional(name: str) -> ConfigDict:
    """Return the fields of DDGAN's discriminators, "small" (8 pixels on) or "large" (64 on)."""
    d = ConfigDict()
    d.name = name
    d.base_channels = 64
    d.time_embedding_dim = 256
    # Which four images a minibatch standard deviation compares: "spread" over what a device sees at
    # once, as published; "neighbours" in the batch, which does not depend on the devices.
    d.stddev_groups = "spread"
    return d


def _unet() -> ConfigDict:
    """Return the fields of the ADM U-Net, with the widths of SIDDM on CIFAR-10."""
    u = ConfigDict()
    u.name = "unet"
    u.base_channels = 256  # C
    u.channel_multipliers = (2, 2, 2)  # one level per entry, each half the resolution
    u.num_res_blocks = 2  # per level
    u.attention_resolutions = (16, 8)  # pixels
    u.dropout = 0.1  # probability
    u.num_heads = 4  # of attention, if head_channels is 0
    u.head_channels = 64  # channels of each head; overrides num_heads
    u.scale_shift_norm = True  # time and class scale and shift; False: they are added
    u.resblock_updown = False  # residual blocks resample; False: convolutions or resampling alone
    u.resample_with_conv = True  # if blocks do not resample
    # "imagen": resample first on the way down, last on the way up, so that no block runs at full
    # resolution; "adm": the original order.
    u.updown_order = "imagen"
    u.remat_resolutions = ()  # pixels; blocks there are computed again in the backward pass
    return u


def _unet_generator() -> ConfigDict:
    u = _unet()
    u.latent = "normal"  # z, as further channels of the input: "normal", "uniform" or "none"
    return u


def _unet_discriminator() -> ConfigDict:
    u = _unet()
    u.num_logits = 1  # per pixel
    return u


def _mlp_generator() -> ConfigDict:
    """Return the fields of the generator of the 25 Gaussians."""
    m = ConfigDict()
    m.name = "mlp"
    m.width = 100  # units of a hidden layer
    m.hidden_layers = 3
    m.time_embedding_dim = 128
    m.latent = "uniform"  # z in [0, 1): "uniform", or "normal" or "none"
    m.latent_dim = 2
    return m


def _mlp_discriminator() -> ConfigDict:
    """Return the fields of the discriminator of the 25 Gaussians."""
    m = ConfigDict()
    m.name = "mlp"
    m.width = 100
    m.hidden_layers = 4
    m.time_embedding_dim = 128
    m.num_logits = 2
    return m


# Each network's own group of fields, by name.
GENERATORS: Mapping[str, Callable[[], ConfigDict]] = {
    "ncsnpp": _ncsnpp,
    "unet": _unet_generator,
    "mlp": _mlp_generator,
}
DISCRIMINATORS: Mapping[str, Callable[[], ConfigDict]] = {
    "small": lambda: _convolutional("small"),
    "large": lambda: _convolutional("large"),
    "unet": _unet_discriminator,
    "mlp": _mlp_discriminator,
}


def resolutions(network: Mapping[str, Any], image_size: int) -> tuple[int, ...]:
    """Return the pixels of each level of a network that has levels, the full resolution first.

    network: its group of fields, with channel_multipliers. The U-Net's order "imagen" halves before
    the first level.
    """
    first = int(network.get("updown_order") == "imagen")
    levels = len(network["channel_multipliers"])
    return tuple(image_size // 2**level for level in range(first, first + levels))


def from_stored(tree: Mapping[str, Any]) -> ConfigDict:
    """Return the locked config in a run folder, a checkpoint or an export, as JSON left it.

    A field that is newer than what was stored had, in effect, its default, and gets it. The tree
    may come from anybody: raises UserError for whatever is not a config, and for one whose networks
    or noise schedule cannot be, as `validation.check_model` says.
    """
    from ddgan_jax.config import checks

    config = base_config()
    checks.check_known("", tree, config)
    for role, networks in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        checks.check_choice({role: tree.get(role, {})}, f"{role}.name", networks)
        config[role] = networks[tree[role]["name"]]()
    for section, fields in tree.items():
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        checks.check_known(f"{section}.", fields, config[section])
        config[section].update(fields)
    checks.check_model(config)
    return config.lock()


def empty_local_paths(config: ConfigDict | dict[str, Any]) -> None:
    """Empty the fields of LOCAL_PATHS."""
    for path in LOCAL_PATHS:
        section, field = path.split(".")
        config[section][field] = ""


def siddm_config() -> ConfigDict:
    """Return SIDDM (Xu et al. 2023) with its CIFAR-10 networks, no data set chosen.

    What the paper leaves open is decided here, each choice with its reason.
    """
    c = base_config()
    c.diffusion.schedule = "cosine"

    c.objective.joint = False
    # s is 0 for every tau < 1 / T, so that only tau says which step the head C must undo.
    c.objective.discriminator_time = "t+1"
    c.objective.afd_weight = 1.0  # the best of the paper's ablation
    # Closest to the paper's words, "explicit L2 reconstruction"; the other forms, without C, would
    # reward a generator that does not denoise.
    c.objective.afd_form = "recon"
    c.objective.afd_regression = True  # without C the term is no divergence
    c.objective.afd_scaling = "none"  # 1 / (2 beta) reaches 1e5 for the smallest tau
    c.objective.denoising_weight = 1.0  # the paper gives no coefficient
    c.objective.r1_gamma = 0.0  # R stands in for it; the paper names no gradient penalty

    # z has the image's shape, since the paper's networks differ only in their input and output
    # channels; per-pixel logits for the same reason.
    c.generator = GENERATORS["unet"]()
    c.discriminator = DISCRIMINATORS["unet"]()

    c.optimizer.generator_learning_rate = 2e-4
    c.optimizer.discriminator_learning_rate = 1e-4
    c.optimizer.beta2 = 0.999  # beta1 and beta2 as in the authors' 25 Gaussians
    return c


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
    """Shrink, in place, to two train steps in seconds on a CPU; kinds of networks are kept."""
    size = 64 if config.discriminator.name == "large" else min(config.data.image_size, 32)
    config.data.image_size = size
    for network in (config.generator, config.discriminator):
        network.update({k: v for k, v in _TINY[network.name].items() if k in network})
        if "attention_resolutions" in network:
            network.attention_resolutions = (size // 2,)
        if "remat_resolutions" in network:
            there = resolutions(network, size)
            network.remat_resolutions = tuple(p for p in network.remat_resolutions if p in there)
    config.objective.r1_interval = 1  # one program to compile instead of two
    config.train.batch_size = 8
    config.train.num_steps = 2
    config.optimizer.decay_steps = min(config.optimizer.decay_steps, 2)
    config.optimizer.decay_interval_steps = 1
    config.log.every_steps = 1
    config.log.samples_every_steps = 2
    config.log.num_samples = 4
    config.checkpoint.save_every_steps = 2
    config.eval.every_steps = 0
    config.sampling.chunk_size = 4


_TINY_CONVOLUTIONAL = {"base_channels": 4, "time_embedding_dim": 16}
_TINY = {
    "ncsnpp": {
        "base_channels": 8,
        "channel_multipliers": (1, 2),
        "num_res_blocks": 1,
        "latent_dim": 8,
        "latent_embedding_dim": 16,
        "latent_layers": 1,
    },
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
