"""ADM's U-Nets of guided-diffusion: their options and state dicts in our terms.

The official network numbers the stages of its two ways (`input_blocks.4.1.qkv.weight`).
`_modules` writes that numbering down once with our names; everything else is a table of what the
parts of a module are called on both sides.

Layouts: convolutions (out, in, h, w) become (h, w, in, out); linear weights, and 1x1 convolutions
in one or two dimensions, become (in, out). The rows of an attention's `qkv` are ordered by

    head, then query / key / value, then channel    attention_order "legacy"
    query / key / value, then head, then channel    attention_order "new", and our columns
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import randomness
from ddgan_jax.config import LARGEST_IMAGE
from ddgan_jax.config.schema import MOST_CHANNELS, MOST_CLASSES, MOST_LAYERS
from ddgan_jax.interop import options, state_dicts
from ddgan_jax.interop.state_dicts import StateDict
from ddgan_jax.models import unet
from ddgan_jax.state import Params

# Official defaults: of the network's constructor, of the scripts' flags, and those that they share.
_CONSTRUCTOR = {"channel_mult": (1, 2, 4, 8), "num_heads": 1, "use_scale_shift_norm": False}
_FLAGS = {
    "image_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "num_heads": 4,
    "use_scale_shift_norm": True,
    "class_cond": False,
    "learn_sigma": False,
}
_SHARED = {
    "dropout": 0.0,
    "num_classes": None,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "use_checkpoint": False,
    "conv_resample": True,
    "dims": 2,
}
# What the scripts take for channel_mult = "", by image size; and the classes of ImageNet.
_CHANNEL_MULT = {
    "64": (1, 2, 3, 4),
    "128": (1, 1, 2, 3, 4),
    "256": (1, 1, 2, 2, 4, 4),
    "512": (0.5, 1, 1, 2, 2, 4, 4),
}
_NUM_CLASSES = 1000


def config_from_args(args: Any) -> ConfigDict:
    """Return the fields of `unet.UNet` for official options, with in_channels and attention_order.

    args: a mapping or argparse namespace, either of the constructor's arguments (recognised by
    model_channels) or of the scripts' flags. In both, attention_resolutions is a string of pixels
    ("32,16,8") or a sequence of downsampling rates, and channel_mult is a string or a sequence.
    What is missing takes the official default, what is unknown is ignored. use_checkpoint becomes
    remat of every level. Raises UserError for values that are not possible.
    """
    args = options.mapping(args, _PROGRAM)
    args = _SHARED | (_CONSTRUCTOR | args if "model_channels" in args else _from_flags(args))
    _read(args, "dims", _two)

    size = _read(args, "image_size", options.integer(1, LARGEST_IMAGE))
    multipliers = _read(args, "channel_mult", lambda value: _multipliers(size, value))
    pixels = tuple(size // 2**level for level in range(len(multipliers)))
    rates = _read(args, "attention_resolutions", lambda value: _rates(size, value))
    attention = tuple(p for level, p in enumerate(pixels) if 2**level in rates)
    recompute = _read(args, "use_checkpoint", options.boolean)
    new_order = _read(args, "use_new_attention_order", options.boolean)
    config = ConfigDict(
        {
            "in_channels": _read(args, "in_channels", _WIDTH),
            "out_channels": _read(args, "out_channels", _WIDTH),
            "image_size": size,
            "base_channels": _read(args, "model_channels", _WIDTH),
            "channel_multipliers": multipliers,
            "num_res_blocks": _read(args, "num_res_blocks", options.integer(1, MOST_LAYERS)),
            "attention_resolutions": attention,
            "dropout": _read(args, "dropout", _probability),
            "num_heads": _read(args, "num_heads", _WIDTH),
            "head_channels": _read(args, "num_head_channels", _or_none(MOST_CHANNELS)),
            "num_heads_up": _read(args, "num_heads_upsample", _or_none(MOST_CHANNELS)),
            "scale_shift_norm": _read(args, "use_scale_shift_norm", options.boolean),
            "resblock_updown": _read(args, "resblock_updown", options.boolean),
            "resample_with_conv": _read(args, "conv_resample", options.boolean),
            "updown_order": "adm",
            "num_classes": _read(args, "num_classes", _or_none(MOST_CLASSES)),
            "remat_resolutions": pixels if recompute else (),
            "attention_order": "new" if new_order else "legacy",
        }
    )
    unet.check(unet.from_config(config))
    return config


_PROGRAM = "guided-diffusion"
_WIDTH = options.integer(1, MOST_CHANNELS)


def _from_flags(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments for the scripts' flags."""
    args = _FLAGS | dict(args)
    args["model_channels"] = args["num_channels"]
    args.setdefault("in_channels", 3)
    learn_sigma = _read(args, "learn_sigma", options.boolean)
    args.setdefault("out_channels", 6 if learn_sigma else 3)
    class_cond = _read(args, "class_cond", options.boolean)
    args.setdefault("num_classes", _NUM_CLASSES if class_cond else None)
    return args


def _read(args: Mapping[str, Any], option: str, reader: options.Reader) -> Any:
    return options.read(args, option, reader, _PROGRAM)


def _two(value: Any) -> int:
    if options.integer(1, 3)(value) != 2:
        raise ValueError("only 2 is possible, these are images")
    return 2


def _or_none(most: int) -> options.Reader:
    """Return the reader of a positive integer, and of None and -1, "not set", as 0."""
    reader = options.integer(-1, most)

    def read_or_none(value: Any) -> int:
        found = -1 if value is None else reader(value)
        if found == 0:
            raise ValueError("0 is less than 1")
        return max(found, 0)

    return read_or_none


def _probability(value: Any) -> float:
    found = options.number(0, 1)(value)
    if found == 1:
        raise ValueError(f"{value} does not lie in [0, 1)")
    return float(found)


def _multipliers(image_size: int, value: Any) -> tuple[float, ...]:
    if value == "":
        if str(image_size) not in _CHANNEL_MULT:
            known = ", ".join(_CHANNEL_MULT)
            raise ValueError(f"image size {image_size} has no default, only {known} have")
        return _CHANNEL_MULT[str(image_size)]
    value = value.split(",") if isinstance(value, str) else value
    return options.sequence(options.number(1 / MOST_CHANNELS, MOST_CHANNELS))(_several(value))


def _rates(image_size: int, value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        pixels = [part for part in value.split(",") if part]
        read_pixels = options.sequence(options.integer(1, LARGEST_IMAGE), least=0)
        return tuple(image_size // one for one in read_pixels(pixels))
    return options.sequence(options.integer(1, LARGEST_IMAGE), least=0)(_several(value))


def _several(value: Any) -> list | tuple:
    if not isinstance(value, list | tuple):
        raise ValueError("it is not a sequence of positive numbers")
    return value


def import_unet(state_dict: StateDict, config: ConfigDict) -> Params:
    """Return our parameters from an official state dict.

    config: as from `config_from_args`. Wrappers around modules, `module.` and `_orig_mod.`, are
    taken off the names. Values keep their dtype. Raises UserError naming every entry that is
    missing, unused or of another shape than config's network, or one that is no array of finite
    numbers.
    """
    given = state_dicts.plain_arrays(state_dict, "that U-Net")
    shapes, names = unet_shapes(config), unet_names(config)

    def official_shape(path: tuple, leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
        return _official_shape(tuple(k.key for k in path), leaf.shape)

    def value(path: tuple, leaf: jax.ShapeDtypeStruct, name: str) -> np.ndarray:
        return _our_layout(tuple(k.key for k in path), given[name], leaf.shape, config)

    wanted = jax.tree.leaves(
        jax.tree.map_with_path(official_shape, shapes), is_leaf=lambda x: isinstance(x, tuple)
    )
    state_dicts.check_entries(
        given, dict(zip(jax.tree.leaves(names), wanted, strict=True)), "that U-Net"
    )
    return jax.tree.map_with_path(value, shapes, names)


def unet_shapes(config: ConfigDict) -> Params:
    """The shapes of our parameters, as jax.ShapeDtypeStruct."""
    network, size = unet.from_config(config), config.image_size

    def init() -> Params:
        x, t = jnp.zeros((1, size, size, config.in_channels)), jnp.zeros(1)
        labels = jnp.zeros(1, jnp.int32) if config.num_classes else None
        return network.init(randomness.run_key(0), x, t, labels)["params"]

    return jax.eval_shape(init)


def unet_names(config: ConfigDict) -> dict[str, Any]:
    """The official name of every parameter, as a tree like the parameters."""
    modules = _modules(config)

    def official_name(path: tuple, _: Any) -> str:
        module, *part, leaf = (k.key for k in path)
        if not part and module.endswith("sample"):  # a convolution without a residual block
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
    """Our module name -> the official one, for every module that any such network may have."""
    num_levels = len(config.channel_multipliers)
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
    if path[-2] == "qkv" and config.attention_order == "legacy":
        heads = unet.attention_heads(config, shape[-1] // 3, path[0].startswith("up_"))
        by_head = value.reshape(heads, 3, -1, *value.shape[1:])
        value = by_head.swapaxes(0, 1).reshape(value.shape)
    if path[-1] == "kernel":
        value = value.transpose(*range(2, value.ndim), 1, 0).reshape(shape)
    return value
