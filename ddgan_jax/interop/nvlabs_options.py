"""Convert the options of the published DDGAN code, each with its type, range and default."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ddgan_jax.config import LARGEST, LARGEST_IMAGE, MOST_TIMESTEPS, base_config, checks
from ddgan_jax.config.networks import NETWORKS
from ddgan_jax.config.schema import MOST_CHANNELS, MOST_LAYERS
from ddgan_jax.errors import UserError
from ddgan_jax.interop import options


class DataSet(NamedTuple):
    """Our data set in the place of an official one.

    num_examples: of an epoch of the official code. max_examples: that we read, 0 for all.
    """

    name: str
    num_examples: int
    split: str = "train"
    max_examples: int = 0
    flip: bool = True


# By the official --dataset.
Datasets = Mapping[str, DataSet]
DATASETS: Datasets = {
    "cifar10": DataSet("cifar10", 50_000),
    "stackmnist": DataSet("stacked_mnist", 120_000, flip=False),
    # The official code trains on the first of the church images alone.
    "lsun": DataSet("lsun/church_outdoor", 120_000, max_examples=120_000),
    "celeba_256": DataSet("celeb_a_hq/256", 27_000),
}
# The official scripts take the large discriminator for every other set.
_SMALL_DISCRIMINATOR = ("cifar10", "stackmnist")

_WIDTH = options.integer(1, MOST_CHANNELS)
_LAYERS = options.integer(0, MOST_LAYERS)
_POSITIVE = options.integer(1, LARGEST)
_RATE = options.number(0, 1)
_WEIGHT = options.number(0, LARGEST)
_STEPS = options.optional(options.integer(0, LARGEST))
_SWITCH = options.optional(options.boolean)


def _choice(field: str) -> options.Reader:
    """Return the reader of the values that this field of our NCSN++ may have."""
    return options.choice(*NETWORKS["generator"]["ncsnpp"][field].choices)


# The field, the official default, what is possible.
Fields = Mapping[str, tuple[str, Any, options.Reader]]
# The official default, what is possible.
Others = Mapping[str, tuple[Any, options.Reader]]

# Official options that are one field of ours.
FIELDS: Fields = {
    "image_size": ("data.image_size", 32, options.integer(1, LARGEST_IMAGE)),
    "num_channels": ("data.channels", 3, options.integer(1, 3)),
    "num_timesteps": ("diffusion.num_timesteps", 4, options.integer(1, MOST_TIMESTEPS)),
    "beta_min": ("diffusion.beta_min", 0.1, _WEIGHT),
    "beta_max": ("diffusion.beta_max", 20.0, _WEIGHT),
    "r1_gamma": ("objective.r1_gamma", 0.05, _WEIGHT),
    "num_channels_dae": ("generator.base_channels", 128, _WIDTH),
    "num_res_blocks": ("generator.num_res_blocks", 2, options.integer(1, MOST_LAYERS)),
    "ch_mult": ("generator.channel_multipliers", (1, 2, 2, 2), options.sequence(_WIDTH)),
    "attn_resolutions": (
        "generator.attention_resolutions",
        (16,),
        options.sequence(options.integer(1, LARGEST_IMAGE), least=0),
    ),
    "fir_kernel": ("generator.fir_kernel", (1, 3, 3, 1), options.sequence(options.number(), 2)),
    "dropout": ("generator.dropout", 0.0, _RATE),
    "resblock_type": ("generator.resblock", "biggan", _choice("resblock")),
    "progressive": ("generator.progressive", "none", _choice("progressive")),
    "progressive_input": ("generator.progressive_input", "residual", _choice("progressive_input")),
    "progressive_combine": ("generator.progressive_combine", "sum", _choice("progressive_combine")),
    "resamp_with_conv": ("generator.resample_with_conv", True, options.boolean),
    "fir": ("generator.fir", True, options.boolean),
    "skip_rescale": ("generator.skip_rescale", True, options.boolean),
    "embedding_type": ("generator.time_embedding", "positional", _choice("time_embedding")),
    "fourier_scale": ("generator.fourier_scale", 16.0, _WEIGHT),
    "conditional": ("generator.time_conditional", True, options.boolean),
    "centered": ("generator.centered", True, options.boolean),
    "nz": ("generator.latent_dim", 100, _WIDTH),
    "z_emb_dim": ("generator.latent_embedding_dim", 256, _WIDTH),
    "n_mlp": ("generator.latent_layers", 3, _LAYERS),
    "t_emb_dim": ("discriminator.time_embedding_dim", 256, _WIDTH),
    "ngf": ("discriminator.base_channels", 64, _WIDTH),
    "lr_g": ("optimizer.generator_learning_rate", 1.5e-4, _RATE),
    "lr_d": ("optimizer.discriminator_learning_rate", 1e-4, _RATE),
    "beta1": ("optimizer.beta1", 0.5, _RATE),
    "beta2": ("optimizer.beta2", 0.9, _RATE),
    "seed": ("train.seed", 1024, options.integer(0, LARGEST)),
}
# Official options that decide more than the value of one field.
OTHERS: Others = {
    "not_use_tanh": (False, _SWITCH),
    "use_geometric": (False, _SWITCH),
    "lazy_reg": (None, _STEPS),
    "use_ema": (False, _SWITCH),
    "ema_decay": (0.9999, _RATE),
    "dataset": (None, options.optional(options.text)),
    "discriminator": (None, options.optional(options.choice("small", "large"))),
    "batch_size": (128, _POSITIVE),
    "num_process_per_node": (1, _POSITIVE),
    "num_proc_node": (1, _POSITIVE),
    "num_epoch": (1200, _POSITIVE),
    "no_lr_decay": (False, _SWITCH),
}


def read_options(args: Any, fields: Fields = FIELDS, others: Others = OTHERS) -> dict[str, Any]:
    """Return every official option that is known here, in our types; unknown ones are left out.

    args: A mapping or argparse namespace with the official names. A missing option takes the
    official default. fields, others: those of a program that grew out of the official one. Raises
    UserError that names the option for values that are not possible.
    """
    # Options of other programs are left out, since namespaces hold whatever a script put there.
    known = {option: default for option, (_, default, _) in fields.items()}
    known |= {option: default for option, (default, _) in others.items()}
    readers = {option: reader for option, (_, _, reader) in fields.items()}
    readers |= {option: reader for option, (_, reader) in others.items()}
    # What is given comes before the official defaults.
    given = known | options.mapping(args, "official")
    return {option: options.read(given, option, readers[option], "official") for option in known}


def config_from_args(args: Any) -> ConfigDict:
    """Return our config for the official command-line arguments.

    args: As for `read_options`. Without `dataset` the discriminator is chosen by image size (large
    from 64 pixels on); `discriminator` = "small" or "large" overrides. Raises UserError for values
    that are not possible.
    """
    given = read_options(args)
    config = base_config()
    fill(config, given, FIELDS, DATASETS)
    # The official scripts choose the discriminator by the data set; weights alone come without one.
    dataset = given["dataset"]
    by_size = "small" if config.data.image_size < 64 else "large"
    by_dataset = "small" if dataset in _SMALL_DISCRIMINATOR else "large"
    kind = by_dataset if dataset in DATASETS else by_size
    config.discriminator.name = given["discriminator"] or kind
    return config


def fill(config: ConfigDict, given: Mapping[str, Any], fields: Fields, datasets: Datasets) -> None:
    """Set what `given`, official options as `read_options` returns them, say, in place.

    fields, datasets: those of the program that they belong to. Raises UserError for a length of the
    training that is not possible.
    """
    for option, (field, _, _) in fields.items():
        section, name = field.split(".")
        setattr(config[section], name, given[option])
    config.generator.output_tanh = not given["not_use_tanh"]
    config.diffusion.schedule = "geometric" if given["use_geometric"] else "vp"
    # Without lazy_reg the official code computes the penalty at every step.
    config.objective.r1_interval = given["lazy_reg"] or 1
    # A decay of 0 makes the moving average the parameters themselves.
    config.optimizer.ema_decay = given["ema_decay"] if given["use_ema"] else 0.0
    _set_training_length(config, given, datasets)


def check_config(
    config: ConfigDict, fields: Fields = FIELDS, decided_by: Mapping[str, str] | None = None
) -> None:
    """Refuse a config from `config_from_args` if its networks cannot be built.

    fields: those of the program that the options belong to. decided_by: its options for fields of
    ours that they decide without being their value. Raises UserError that names the official
    options.
    """
    names = {field: option for option, (field, _, _) in fields.items()}
    names |= {**_DECIDED_BY, **(decided_by or {})}
    try:
        checks.check_model(config)
    except UserError as error:
        # The user knows the official names, and not the fields that they have become.
        raise UserError(_FIELD.sub(lambda field: _named_by(names, field[0]), str(error))) from error


# Fields of ours that an option decides without being their value.
_DECIDED_BY = {
    "generator.output_tanh": "not_use_tanh",
    "diffusion.schedule": "use_geometric",
    "objective.r1_interval": "lazy_reg",
    "optimizer.ema_decay": "ema_decay",
    "discriminator.name": "discriminator",
    "train.batch_size": "batch_size",
}
_FIELD = re.compile(r"\b[a-z]+\.[a-z]\w*")


def _named_by(names: Mapping[str, str], field: str) -> str:
    return f"official option {names[field]}" if field in names else field


def _set_training_length(config: ConfigDict, given: Mapping[str, Any], datasets: Datasets) -> None:
    processes = given["num_process_per_node"] * given["num_proc_node"]
    # The official option is the batch of one process; ours is that of all devices.
    batch_size = given["batch_size"] * processes
    if batch_size > LARGEST:
        raise UserError(
            f"official option batch_size: {given['batch_size']} on each of {processes} processes "
            "are too many"
        )
    config.train.batch_size = batch_size
    if given["dataset"] not in datasets:
        return
    dataset = datasets[given["dataset"]]
    for field in ("name", "split", "max_examples", "flip"):
        config.data[field] = getattr(dataset, field)
    # The official loader drops the last batch of an epoch if it is not full.
    steps_per_epoch = dataset.num_examples // batch_size
    # The official loop includes the last epoch.
    num_steps = (given["num_epoch"] + 1) * steps_per_epoch
    if not 0 < num_steps <= LARGEST:
        raise UserError(
            f"official option num_epoch: {given['num_epoch']} epochs of {dataset.num_examples:,} "
            f"images, {batch_size} at a time, are {num_steps:,} steps, which is not possible"
        )
    config.train.num_steps = num_steps
    if not given["no_lr_decay"]:
        # The official schedule steps once an epoch, so that ours is a staircase.
        config.optimizer.decay_interval_steps = steps_per_epoch
        config.optimizer.decay_steps = given["num_epoch"] * steps_per_epoch


# The published commands, as the official parser reads them.
_ALL = {"num_channels": 3, "use_ema": True, "num_res_blocks": 2, "lr_g": 1.6e-4, "lr_d": 1e-4}
_256 = _ALL | {
    "image_size": 256,
    "num_channels_dae": 64,
    "ch_mult": (1, 1, 2, 2, 4, 4),
    "num_process_per_node": 8,
    "lazy_reg": 10,
}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "cifar10": _ALL
    | {
        "dataset": "cifar10",
        "ch_mult": (1, 2, 2, 2),
        "n_mlp": 4,
        "batch_size": 64,
        "num_process_per_node": 4,
        "num_epoch": 1800,
        "lr_d": 1.25e-4,
        "r1_gamma": 0.02,
        "lazy_reg": 15,
    },
    "lsun_church256": _256
    | {"dataset": "lsun", "batch_size": 8, "num_epoch": 500, "r1_gamma": 1.0, "ema_decay": 0.999},
    "celebahq256": _256
    | {
        "dataset": "celeba_256",
        "num_timesteps": 2,
        "batch_size": 4,
        "num_epoch": 800,
        "r1_gamma": 2.0,
        "lr_g": 2e-4,
    },
}
