"""Convert state dicts of the published DDGAN code; `nvlabs_options` converts its options.

WaveDiff's code grew out of it and names its networks' parts alike: `wavediff_options` converts the
options of that.

The official networks keep their modules in one list and name parameters by position
(`all_modules.17.Conv_0.weight`). `_generator_modules` writes that list down once with our names;
everything else is a table of what the parts of a module are called on both sides.

Layouts: convolutions (out, in, h, w) become (h, w, in, out); 1x1 convolutions, which are dense
layers here, and linear weights become (in, out); the official `NIN.W` is (in, out) already.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import models
from ddgan_jax.config import input_size, resolutions
from ddgan_jax.config.files import from_json, to_json
from ddgan_jax.interop import state_dicts
from ddgan_jax.interop.nvlabs_options import check_config, config_from_args, read_options
from ddgan_jax.interop.state_dicts import StateDict

__all__ = [
    "check_config",
    "config_from_args",
    "import_discriminator",
    "import_generator",
    "read_options",
]

Params = dict[str, Any]


def import_generator(state_dict: StateDict, config: ConfigDict) -> Params:
    """Return our generator parameters from an official state dict.

    Wrappers around modules, `module.` and `_orig_mod.`, are taken off the names. Values keep their
    dtype. Raises UserError that names the entries that are missing, unused or of another shape
    than those of config's network, or one that is no array of finite numbers.
    """
    g = config.generator
    # Official networks own a few weights that no forward pass reads: ours have no place for them.
    never_used = set()
    if not g.time_conditional:
        positions = _generator_modules(config).values()
        # Every official residual block owns a dense layer for the time, also in a network that is
        # not told it.
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
    # The names of two parts depend on the options: the official blocks have other classes then.
    parts = dict(_GENERATOR_PARTS)
    parts["shortcut"] = "NIN_0" if g.resblock == "ddpm" else "Conv_2"
    parts["conv"] = "Conv2d_0" if g.fir else "Conv_0"
    wavelet_pyramid = g.progressive_input == "residual" and g.get("wavelet_pyramid", False)

    def official_name(path: tuple[str, ...]) -> str:
        # The official mapping is a list in which activations have numbers, too.
        if path[0] == "latent_mapping":
            layer = int(path[1].removeprefix("dense_"))
            return f"z_transform.{2 * layer + 1}.{_LEAVES[path[-1]]}"
        part = parts["/".join(path[1:-1])]
        # A pyramid of Haar bands is its convolution; others have one inside.
        has_parts = not (wavelet_pyramid and path[0].endswith("_pyramid"))
        if not part and has_parts and path[0].endswith(("_pyramid", "_upsample")):
            part = "Conv_0" if path[0].startswith("down") else "Conv2d_0"
        return _join(f"all_modules.{modules[path[0]]}", part, path[-1])

    return _named(_templates(config)[0], official_name)


def discriminator_names(config: ConfigDict) -> dict[str, Any]:
    """Return the official name of every discriminator parameter, as a tree like the parameters."""

    def official_name(path: tuple[str, ...]) -> str:
        module = _DISCRIMINATOR_MODULES.get(path[0])
        # Residual blocks are numbered from 1 on in the official code, and from 0 here.
        if module is None:
            module = f"conv{int(path[0].removeprefix('block_')) + 1}"
        return _join(module, _DISCRIMINATOR_PARTS["/".join(path[1:-1])], path[-1])

    return _named(_templates(config)[1], official_name)


def _templates(config: ConfigDict) -> tuple[Params, Params]:
    return _templates_of(to_json(config))


@functools.lru_cache(maxsize=8)
def _templates_of(config: str) -> tuple[Params, Params]:
    # The import of a whole checkpoint needs the same networks seven times, and each takes seconds.
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
    "detail_convs": "convH_0",
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
# Official convolutions of one pixel, which are dense layers here.
_CONVOLUTIONS_1X1 = ("Conv_0.weight", "Conv_2.weight", "skip.0.weight", "start_conv.weight")


def _join(module: str, part: str, leaf: str) -> str:
    leaves = _NIN_LEAVES if part.startswith("NIN") else _LEAVES
    return ".".join(filter(None, (module, part, leaves[leaf])))


def _generator_modules(config: ConfigDict) -> dict[str, int]:
    """Return the position of every module in the official list: the order of the forward pass."""
    g = config.generator
    last = len(g.channel_multipliers) - 1
    pixels = resolutions(g, input_size(config, "generator"))
    attends = [pixels[level] in g.attention_resolutions for level in range(last + 1)]
    # The constructor of the official network appends to its list in just this order.
    names = ["time_fourier"] if g.time_embedding == "fourier" else []
    names += ["time_dense_0", "time_dense_1"] if g.time_conditional else []
    names += ["input_conv"]
    for level in range(last + 1):
        for i in range(g.num_res_blocks):
            names += [f"down_{level}_block_{i}"]
            names += [f"down_{level}_attention_{i}"] if attends[level] else []
        # The deepest level has nothing below it to downsample for.
        if level < last:
            names += [f"down_{level}_downsample"]
            names += [f"down_{level}_pyramid"] if g.progressive_input != "none" else []
    names += ["middle_block_0", "middle_attention", "middle_block_1"]
    for level in range(last, -1, -1):
        names += [f"up_{level}_block_{i}" for i in range(g.num_res_blocks + 1)]
        # On the way up a level has one attention after all its blocks, on the way down one after
        # each.
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
    # All entries are compared before any is converted, so that one message names all problems.
    given = state_dicts.plain_arrays(state_dict, f"that {network}")
    names, leaves = jax.tree.leaves(official_names), jax.tree.leaves(template)
    wanted = {n: _official_shape(n, leaf.shape) for n, leaf in zip(names, leaves, strict=True)}
    state_dicts.check_entries(
        given, wanted, f"that {network}", may_be_unused=lambda name: name in never_used
    )
    return jax.tree.map(
        lambda name, leaf: _our_layout(name, given[name], leaf.shape), official_names, template
    )


def _official_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return (shape[3], shape[2], *shape[:2])
    if len(shape) != 2 or not name.endswith(".weight"):
        return shape
    # The shape of a kernel (in, out) does not tell a linear layer from a convolution of one pixel.
    is_convolution = name.endswith(_CONVOLUTIONS_1X1)
    return (shape[1], shape[0], *((1, 1) if is_convolution else ()))


def _our_layout(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    # The reshape drops the window of a convolution of one pixel, which is a dense layer here.
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0).reshape(shape)
    return value.T if value.ndim == 2 and name.endswith(".weight") else value
