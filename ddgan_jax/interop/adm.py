"""Convert the U-Nets of guided-diffusion (ADM): their options and state dicts in our terms.

This is a library function without a command. An ADM model predicts the noise of a thousand small
steps, and no model that this program trains or draws works like that; but its U-Net is ours, number
for number, for whoever compares such networks or builds on one:

    config = adm.config_from_args(options)
    params = adm.import_unet(state_dict, config)
    output = models.build_unet(config).apply({"params": params}, x, timesteps, labels)

The official network numbers the stages of its two ways (`input_blocks.4.1.qkv.weight`). `_modules`
writes that numbering down once with our names; everything else is a table of what the parts of a
module are called on both sides.

Layouts: convolutions (out, in, h, w) become (h, w, in, out); linear weights, and 1x1 convolutions
in one or two dimensions, become (in, out). The rows of an attention's `qkv` are ordered by

    head, then query / key / value, then channel    attention_order "legacy"
    query / key / value, then head, then channel    attention_order "new", and our columns
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import randomness
from ddgan_jax.interop import state_dicts
from ddgan_jax.interop.adm_options import config_from_args
from ddgan_jax.interop.state_dicts import StateDict
from ddgan_jax.models import unet
from ddgan_jax.state import Params

__all__ = ["config_from_args", "import_unet", "unet_names", "unet_shapes"]


def import_unet(state_dict: StateDict, config: ConfigDict) -> Params:
    """Return our parameters from an official state dict.

    config: From `config_from_args`. Wrappers around modules, `module.` and `_orig_mod.`, are taken
    off the names. Values keep their dtype. Raises UserError that names the entries that are missing
    or unused, that have another shape than in config's network, or that are no finite arrays.
    """
    given = state_dicts.plain_arrays(state_dict, "that U-Net")
    shapes, names = unet_shapes(config), unet_names(config)

    def official_shape(path: tuple, leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
        return _official_shape(tuple(k.key for k in path), leaf.shape)

    def value(path: tuple, leaf: jax.ShapeDtypeStruct, name: str) -> np.ndarray:
        return _our_layout(tuple(k.key for k in path), given[name], leaf.shape, config)

    # Shapes are tuples, which JAX would take for trees.
    wanted = jax.tree.leaves(
        jax.tree.map_with_path(official_shape, shapes), is_leaf=lambda x: isinstance(x, tuple)
    )
    state_dicts.check_entries(
        given, dict(zip(jax.tree.leaves(names), wanted, strict=True)), "that U-Net"
    )
    return jax.tree.map_with_path(value, shapes, names)


def unet_shapes(config: ConfigDict) -> Params:
    """Return the shapes and dtypes of our parameters; nothing is computed."""
    network, size = unet.from_config(config), config.image_size

    def init() -> Params:
        # eval_shape traces the network with one image: shapes of parameters do not depend on the
        # batch.
        x, t = jnp.zeros((1, size, size, config.in_channels)), jnp.zeros(1)
        labels = jnp.zeros(1, jnp.int32) if config.num_classes else None
        return network.init(randomness.run_key(0), x, t, labels)["params"]

    return jax.eval_shape(init)


def unet_names(config: ConfigDict) -> dict[str, Any]:
    """Return the official name of every parameter, as a tree like the parameters."""
    modules = _modules(config)

    def official_name(path: tuple, _: Any) -> str:
        module, *part, leaf = (k.key for k in path)
        # A convolution without a residual block around it has one of two names of its own.
        if not part and module.endswith("sample"):
            official_part = ["op" if module.startswith("down") else "conv"]
        else:
            official_part = [_PARTS[name] for name in part]
        return ".".join([modules[module], *official_part, _LEAVES[leaf]])

    return jax.tree.map_with_path(official_name, unet_shapes(config))


_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
_PARTS = {
    "norm_0": "in_layers.0",
    "conv_0": "in_layers.2",
    "embedding": "emb_layers.1",
    "norm_1": "out_layers.0",
    "conv_1": "out_layers.3",
    "shortcut": "skip_connection",
    "norm": "norm",
    "qkv": "qkv",
    "output": "proj_out",
}
_MODULES = {
    "time_dense_0": "time_embed.0",
    "time_dense_1": "time_embed.2",
    "label_embedding": "label_emb",
    "input_conv": "input_blocks.0.0",
    "middle_block_0": "middle_block.0",
    "middle_attention": "middle_block.1",
    "middle_block_1": "middle_block.2",
    "output_norm": "out.0",
    "output_conv": "out.2",
}
# Official 1x1 convolutions that are dense layers here: the shape of their windows.
_WINDOWS = {"shortcut": (1, 1), "qkv": (1,), "output": (1,)}


def _modules(config: ConfigDict) -> dict[str, str]:
    """Return the official name of every module that a network of this many levels may have."""
    num_levels = len(config.channel_multipliers)
    # The official lists count blocks and downsamplings alike. Attention has no number of its own:
    # it is the second module of its block's stage, and so is an upsampling after its last block.
    names, stage = dict(_MODULES), 1
    for level in range(num_levels):
        for i in range(config.num_res_blocks):
            names[f"down_{level}_block_{i}"] = f"input_blocks.{stage}.0"
            names[f"down_{level}_attention_{i}"] = f"input_blocks.{stage}.1"
            stage += 1
        names[f"down_{level}_downsample"] = f"input_blocks.{stage}.0"
        stage += 1
    stage = 0
    for level in reversed(range(num_levels)):
        for i in range(config.num_res_blocks + 1):
            names[f"up_{level}_block_{i}"] = f"output_blocks.{stage}.0"
            names[f"up_{level}_attention_{i}"] = f"output_blocks.{stage}.1"
            stage += 1
        # The upsampling stands behind the attention of its stage, where there is one.
        attends = config.image_size // 2**level in config.attention_resolutions
        names[f"up_{level}_upsample"] = f"output_blocks.{stage - 1}.{1 + attends}"
    return names


def _official_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if path[-1] != "kernel":
        return shape
    *window, inputs, outputs = shape
    return (outputs, inputs, *_WINDOWS.get(path[-2], window))


def _our_layout(
    path: tuple[str, ...], value: np.ndarray, shape: tuple[int, ...], config: ConfigDict
) -> np.ndarray:
    # Our columns are ordered by query, key and value first, and within each of them by head.
    if path[-2] == "qkv" and config.attention_order == "legacy":
        heads = unet.attention_heads(config, shape[-1] // 3, path[0].startswith("up_"))
        # Weights and biases alike: their first axis is that of the outputs in the official layout.
        by_head = value.reshape(heads, 3, -1, *value.shape[1:])
        value = by_head.swapaxes(0, 1).reshape(value.shape)
    if path[-1] == "kernel":
        value = value.transpose(*range(2, value.ndim), 1, 0).reshape(shape)
    return value
