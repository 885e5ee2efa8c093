"""The published DDGAN checkpoints: their options and state dicts in our terms.

The official networks keep their modules in one list and name parameters by position
(`all_modules.17.Conv_0.weight`). `_generator_modules` writes that list down once with our names;
everything else is a table of what the parts of a module are called on both sides.

Layouts: convolutions (out, in, h, w) become (h, w, in, out); 1x1 convolutions, which are dense
layers here, and linear weights become (in, out); the official `NIN.W` is (in, out) already.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import models, validation
from ddgan_jax.config import LARGEST, LARGEST_IMAGE, MOST_TIMESTEPS, base_config
from ddgan_jax.config_files import from_json, to_json
from ddgan_jax.errors import UserError
from ddgan_jax.interop import options, state_dicts
from ddgan_jax.interop.state_dicts import StateDict
from ddgan_jax.validation.fields import MOST_CHANNELS, MOST_LAYERS

Params = dict[str, Any]

# Our data set for each official --dataset, and how many images an epoch of it has.
_DATASETS = {
    "cifar10": ("cifar10", 50_000),
    "stackmnist": ("stacked_mnist", 120_000),
    "lsun": ("lsun/church_outdoor", 120_000),
    "celeba_256": ("celeb_a_hq/256", 27_000),
}
_SMALL_DISCRIMINATOR = ("cifar10", "stackmnist")

_WIDTH = options.integer(1, MOST_CHANNELS)
_LAYERS = options.integer(0, MOST_LAYERS)
_POSITIVE = options.integer(1, LARGEST)
_RATE = options.number(0, 1)
_WEIGHT = options.number(0, LARGEST)
_STEPS = options.optional(options.integer(0, LARGEST))
_SWITCH = options.optional(options.boolean)

# Official options that are one field of ours: the field, the official default, what is possible.
_FIELDS: Mapping[str, tuple[str, Any, options.Reader]] = {
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
    "resblock_type": (
        "generator.resblock",
        "biggan",
        options.choice("ddpm", "biggan", "biggan_oneadagn"),
    ),
    "progressive": (
        "generator.progressive",
        "none",
        options.choice("none", "output_skip", "residual"),
    ),
    "progressive_input": (
        "generator.progressive_input",
        "residual",
        options.choice("none", "input_skip", "residual"),
    ),
    "progressive_combine": (
        "generator.progressive_combine",
        "sum",
        options.choice("sum", "cat"),
    ),
    "resamp_with_conv": ("generator.resample_with_conv", True, options.boolean),
    "fir": ("generator.fir", True, options.boolean),
    "skip_rescale": ("generator.skip_rescale", True, options.boolean),
    "embedding_type": (
        "generator.time_embedding",
        "positional",
        options.choice("positional", "fourier"),
    ),
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
# Those that decide something else.
_OTHERS: Mapping[str, tuple[Any, options.Reader]] = {
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


def read_options(args: Any) -> dict[str, Any]:
    """Return every official option that is known here, in our types; unknown ones are left out.

    args: a mapping or argparse namespace with the official names; what is missing takes the
    official default. Raises UserError for values that are not possible, naming the option.
    """
    known = {option: default for option, (_, default, _) in _FIELDS.items()}
    known |= {option: default for option, (default, _) in _OTHERS.items()}
    readers = {option: reader for option, (_, _, reader) in _FIELDS.items()}
    readers |= {option: reader for option, (_, reader) in _OTHERS.items()}
    given = known | options.mapping(args, "official")
    return {option: options.read(given, option, readers[option], "official") for option in known}


def config_from_args(args: Any) -> ConfigDict:
    """Return our config for the official command-line arguments.

    args: as of `read_options`. Without `dataset` the discriminator is chosen by image size (large
    from 64 pixels on); `discriminator` = "small" or "large" overrides. Raises UserError for values
    that are not possible.
    """
    given = read_options(args)
    config = base_config()
    for option, (field, _, _) in _FIELDS.items():
        section, name = field.split(".")
        setattr(config[section], name, given[option])
    config.generator.output_tanh = not given["not_use_tanh"]
    config.diffusion.schedule = "geometric" if given["use_geometric"] else "vp"
    config.objective.r1_interval = given["lazy_reg"] or 1
    config.optimizer.ema_decay = given["ema_decay"] if given["use_ema"] else 0.0
    dataset = given["dataset"]
    by_size = "small" if config.data.image_size < 64 else "large"
    by_dataset = "small" if dataset in _SMALL_DISCRIMINATOR else "large"
    kind = by_dataset if dataset in _DATASETS else by_size
    config.discriminator.name = given["discriminator"] or kind
    _set_training_length(config, given)
    return config


def check_config(config: ConfigDict) -> None:
    """Refuse a config from `config_from_args` whose networks cannot be.

    Raises UserError that names the official options.
    """
    names = {field: option for option, (field, _, _) in _FIELDS.items()} | _DECIDED_BY
    try:
        validation.check_model(config)
    except UserError as error:
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


def _set_training_length(config: ConfigDict, given: Mapping[str, Any]) -> None:
    processes = given["num_process_per_node"] * given["num_proc_node"]
    batch_size = given["batch_size"] * processes
    if batch_size > LARGEST:
        raise UserError(
            f"official option batch_size: {given['batch_size']} on each of {processes} processes "
            "are too many"
        )
    config.train.batch_size = batch_size
    dataset = given["dataset"]
    if dataset not in _DATASETS:
        return
    name, num_examples = _DATASETS[dataset]
    config.data.name, config.data.flip = name, dataset != "stackmnist"
    config.data.max_examples = num_examples if dataset == "lsun" else 0
    steps_per_epoch = num_examples // batch_size
    num_steps = (given["num_epoch"] + 1) * steps_per_epoch
    if not 0 < num_steps <= LARGEST:
        raise UserError(
            f"official option num_epoch: {given['num_epoch']} epochs of {num_examples:,} images, "
            f"{batch_size} at a time, are {num_steps:,} steps, which is not possible"
        )
    config.train.num_steps = num_steps
    if not given["no_lr_decay"]:
        config.optimizer.decay_interval_steps = steps_per_epoch
        config.optimizer.decay_steps = given["num_epoch"] * steps_per_epoch


def import_generator(state_dict: StateDict, config: ConfigDict) -> Params:
    """Return our generator parameters from an official state dict.

    Wrappers around modules, `module.` and `_orig_mod.`, are taken off the names. Values keep their
    dtype. Raises UserError naming every entry that is missing, unused or of another shape than
    config's network, or one that is no array of finite numbers.
    """
    g = config.generator
    # Official networks own a few weights that no forward pass reads; they are not wanted here.
    never_used = set()
    if not g.time_conditional:
        positions = _generator_modules(config).values()
        never_used |= {f"all_modules.{i}.Dense_0.{leaf}" for i in positions for leaf in _WB}
        never_used |= {"all_modules.0.W"} if g.time_embedding == "fourier" else set()
    template = _templates(config)[0]
    return _import(state_dict, template, generator_names(config), never_used, "generator")


def import_discriminator(state_dict: StateDict, config: ConfigDict) -> Params:
    """Return our discriminator parameters from an official state dict; as `import_generator`."""
    template = _templates(config)[1]
    return _import(state_dict, template, discriminator_names(config), set(), "discriminator")


def generator_names(config: ConfigDict) -> dict[str, Any]:
    """Return the official name of every generator parameter, as a tree like the parameters."""
    g = config.generator
    modules = _generator_modules(config)
    parts = dict(_GENERATOR_PARTS)
    parts["shortcut"] = "NIN_0" if g.resblock == "ddpm" else "Conv_2"
    parts["conv"] = "Conv2d_0" if g.fir else "Conv_0"

    def official_name(path: tuple[str, ...]) -> str:
        if path[0] == "latent_mapping":
            layer = int(path[1].removeprefix("dense_"))
            return f"z_transform.{2 * layer + 1}.{_LEAVES[path[-1]]}"
        part = parts["/".join(path[1:-1])]
        if not part and path[0].endswith(("_pyramid", "_upsample")):
            part = "Conv_0" if path[0].startswith("down") else "Conv2d_0"
        return _join(f"all_modules.{modules[path[0]]}", part, path[-1])

    return _named(_templates(config)[0], official_name)


def discriminator_names(config: ConfigDict) -> dict[str, Any]:
    """Return the official name of every discriminator parameter, as a tree like the parameters."""

    def official_name(path: tuple[str, ...]) -> str:
        module = _DISCRIMINATOR_MODULES.get(path[0])
        if module is None:
            module = f"conv{int(path[0].removeprefix('block_')) + 1}"
        return _join(module, _DISCRIMINATOR_PARTS["/".join(path[1:-1])], path[-1])

    return _named(_templates(config)[1], official_name)


def _templates(config: ConfigDict) -> tuple[Params, Params]:
    return _templates_of(to_json(config))


@functools.lru_cache(maxsize=8)
def _templates_of(config: str) -> tuple[Params, Params]:
    # A whole checkpoint reads the same networks seven times.
    return models.abstract_params(from_json(config))


def _named(template: Params, name: Callable[[tuple[str, ...]], str]) -> dict[str, Any]:
    return jax.tree.map_with_path(lambda path, _: name(tuple(k.key for k in path)), template)


_WB = ("weight", "bias")
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "frequencies": "W"}
_NIN_LEAVES = {"kernel": "W", "bias": "b"}
_GENERATOR_PARTS = {
    "": "",
    "norm_0/style": "GroupNorm_0.style",
    "norm_1/style": "GroupNorm_1.style",
    "norm_1": "GroupNorm_1",
    "conv_0": "Conv_0",
    "conv_1": "Conv_1",
    "time": "Dense_0",
    "norm": "GroupNorm_0",
    "query": "NIN_0",
    "key": "NIN_1",
    "value": "NIN_2",
    "output": "NIN_3",
}
_DISCRIMINATOR_MODULES = {
    "time_dense_0": "t_embed.main.0",
    "time_dense_1": "t_embed.main.2",
    "input_conv": "start_conv",
    "output_conv": "final_conv",
    "output": "end_linear",
}
_DISCRIMINATOR_PARTS = {
    "": "",
    "conv_0": "conv1.0",
    "conv_1": "conv2.0",
    "time": "dense_t1",
    "shortcut": "skip.0",
}


def _join(module: str, part: str, leaf: str) -> str:
    leaves = _NIN_LEAVES if part.startswith("NIN") else _LEAVES
    return ".".join(filter(None, (module, part, leaves[leaf])))


def _generator_modules(config: ConfigDict) -> dict[str, int]:
    """Our module name -> position in the official list, in the order of the forward pass."""
    g = config.generator
    last = len(g.channel_multipliers) - 1
    attends = [
        config.data.image_size // 2**level in g.attention_resolutions for level in range(last + 1)
    ]
    names = ["time_fourier"] if g.time_embedding == "fourier" else []
    names += ["time_dense_0", "time_dense_1"] if g.time_conditional else []
    names += ["input_conv"]
    for level in range(last + 1):
        for i in range(g.num_res_blocks):
            names += [f"down_{level}_block_{i}"]
            names += [f"down_{level}_attention_{i}"] if attends[level] else []
        if level < last:
            names += [f"down_{level}_downsample"]
            names += [f"down_{level}_pyramid"] if g.progressive_input != "none" else []
    names += ["middle_block_0", "middle_attention", "middle_block_1"]
    for level in range(last, -1, -1):
        names += [f"up_{level}_block_{i}" for i in range(g.num_res_blocks + 1)]
        names += [f"up_{level}_attention"] if attends[level] else []
        if g.progressive == "output_skip" or (g.progressive == "residual" and level == last):
            names += [f"up_{level}_pyramid_norm", f"up_{level}_pyramid_conv"]
        elif g.progressive == "residual":
            names += [f"up_{level}_pyramid"]
        names += [f"up_{level}_upsample"] if level else []
    names += ["output_norm", "output_conv"] if g.progressive != "output_skip" else []
    return {name: position for position, name in enumerate(names)}


def _import(
    state_dict: StateDict,
    template: Params,
    official_names: dict[str, Any],
    never_used: set[str],
    network: str,
) -> Params:
    given = state_dicts.plain_arrays(state_dict, f"that {network}")
    names = jax.tree.leaves(official_names)
    problems = [f"missing {name}" for name in names if name not in given]
    problems += [f"unused {name}" for name in given if name not in {*names, *never_used}]

    def value(name: str, leaf: jax.ShapeDtypeStruct) -> Any:
        if name not in given:
            return leaf
        array = _our_layout(name, given[name], leaf.ndim)
        if array.shape != leaf.shape:
            problems.append(f"{name} has shape {array.shape}, the config wants {leaf.shape}")
        return array

    params = jax.tree.map(value, official_names, template)
    state_dicts.refuse_problems(problems, network)
    return params


def _our_layout(name: str, value: np.ndarray, ndim: int) -> np.ndarray:
    if value.ndim == 4 and ndim == 2 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 and name.endswith(".weight") else value
