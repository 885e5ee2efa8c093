"""ADM's U-Nets of guided-diffusion: their options and state dicts in our terms.

The official network numbers the stages of its two ways (`input_blocks.4.1.qkv.weight`).
`_modules` writes that numbering down once with our names; everything else is a table of what the
parts of a module are called on both sides.

Layouts: convolutions (out, in, h, w) become (h, w, in, out); linear weights, and 1x1 convolutions
in one or two dimensions, become (in, out). The rows of an attention's `qkv` are ordered by

    head, then query / key / value, then channel    attention_order "legacy"
    query / key / value, then head, then channel    attention_order "new", and our columns
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import randomness
from ddgan_jax.errors import UserError
from ddgan_jax.models import unet

StateDict = Mapping[str, np.ndarray]
Params = dict[str, Any]

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
_TRUE, _FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


def config_from_args(args: Any) -> ConfigDict:
    """The fields of `unet.UNet` for official options, with in_channels and attention_order.

    args: a mapping or argparse namespace, either of the constructor's arguments (recognised by
    model_channels) or of the scripts' flags. In both, attention_resolutions is a string of pixels
    ("32,16,8") or a sequence of downsampling rates, and channel_mult is a string or a sequence.
    What is missing takes the official default, what is unknown is ignored. use_checkpoint becomes
    remat of every level. Raises UserError for values that are not possible.
    """
    args = dict(args) if isinstance(args, Mapping) else dict(vars(args))
    args = _SHARED | (_CONSTRUCTOR | args if "model_channels" in args else _from_flags(args))
    if _read(args, "dims", int) != 2:
        raise UserError("guided-diffusion option dims: only 2 is possible, these are images")

    size = _read(args, "image_size", _positive)
    multipliers = _read(args, "channel_mult", functools.partial(_multipliers, size))
    pixels = tuple(size // 2**level for level in range(len(multipliers)))
    rates = _read(args, "attention_resolutions", functools.partial(_rates, size))
    attention = tuple(p for level, p in enumerate(pixels) if 2**level in rates)
    recompute = _read(args, "use_checkpoint", _boolean)
    new_order = _read(args, "use_new_attention_order", _boolean)
    config = ConfigDict(
        {
            "in_channels": _read(args, "in_channels", _positive),
            "out_channels": _read(args, "out_channels", _positive),
            "image_size": size,
            "base_channels": _read(args, "model_channels", _positive),
            "channel_multipliers": multipliers,
            "num_res_blocks": _read(args, "num_res_blocks", _positive),
            "attention_resolutions": attention,
            "dropout": _read(args, "dropout", _probability),
            "num_heads": _read(args, "num_heads", _positive),
            "head_channels": _read(args, "num_head_channels", _optional),
            "num_heads_up": _read(args, "num_heads_upsample", _optional),
            "scale_shift_norm": _read(args, "use_scale_shift_norm", _boolean),
            "resblock_updown": _read(args, "resblock_updown", _boolean),
            "resample_with_conv": _read(args, "conv_resample", _boolean),
            "updown_order": "adm",
            "num_classes": _read(args, "num_classes", _optional),
            "remat_resolutions": pixels if recompute else (),
            "attention_order": "new" if new_order else "legacy",
        }
    )
    unet.check(unet.from_config(config))
    return config


def _from_flags(args: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments for the scripts' flags."""
    args = _FLAGS | args
    args["model_channels"] = args["num_channels"]
    args.setdefault("in_channels", 3)
    args.setdefault("out_channels", 6 if _read(args, "learn_sigma", _boolean) else 3)
    args.setdefault("num_classes", _NUM_CLASSES if _read(args, "class_cond", _boolean) else None)
    return args


def _read(args: Mapping[str, Any], option: str, kind: Callable[[Any], Any]) -> Any:
    if option not in args:
        raise UserError(f"guided-diffusion option {option} is missing and has no default")
    try:
        return kind(args[option])
    except (TypeError, ValueError) as error:
        raise UserError(f"guided-diffusion option {option}: {error}") from error


def _positive(value: Any) -> int:
    if int(value) < 1:
        raise ValueError(f"{value} is less than 1")
    return int(value)


def _optional(value: Any) -> int:
    # Officially None and -1 stand for "not set", here 0 does.
    return 0 if value is None or int(value) == -1 else _positive(value)


def _probability(value: Any) -> float:
    if not 0 <= float(value) < 1:
        raise ValueError(f"{value} does not lie in [0, 1)")
    return float(value)


def _boolean(value: Any) -> bool:
    # As the official parser reads its flags; bool("False") is True.
    text = str(value).lower()
    if text not in _TRUE + _FALSE:
        raise ValueError(f"{value!r} is not a boolean")
    return text in _TRUE


def _multipliers(image_size: int, value: Any) -> tuple[float, ...]:
    if value == "":
        if str(image_size) not in _CHANNEL_MULT:
            known = ", ".join(_CHANNEL_MULT)
            raise ValueError(f"image size {image_size} has no default, only {known} have")
        return _CHANNEL_MULT[str(image_size)]
    multipliers = tuple(map(int, value.split(","))) if isinstance(value, str) else tuple(value)
    if not multipliers or min(multipliers) <= 0:
        raise ValueError(f"{value} is not a sequence of positive numbers")
    return multipliers


def _rates(image_size: int, value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        return tuple(image_size // _positive(pixels) for pixels in value.split(",") if pixels)
    return tuple(map(_positive, value))


def import_unet(state_dict: StateDict, config: ConfigDict) -> Params:
    """Our parameters from an official state dict (with or without `module.`).

    config: as from `config_from_args`. Values keep their dtype. Raises UserError naming every
    entry that is missing, unused or of another shape than config's network.
    """
    given = {name.removeprefix("module."): np.asarray(v) for name, v in state_dict.items()}
    shapes, names = unet_shapes(config), unet_names(config)
    wanted = jax.tree.leaves(names)
    problems = [f"missing {name}" for name in wanted if name not in given]
    problems += [f"unused {name}" for name in given if name not in set(wanted)]

    def value(path: tuple, leaf: jax.ShapeDtypeStruct, name: str) -> Any:
        keys, array = tuple(k.key for k in path), given.get(name)
        if array is None:
            return leaf
        shape = _official_shape(keys, leaf.shape)
        if array.shape != shape:
            problems.append(f"{name} has shape {array.shape}, the config wants {shape}")
            return leaf
        return _our_layout(keys, array, leaf.shape, config)

    params = jax.tree.map_with_path(value, shapes, names)
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))
        raise UserError(f"this state dict is not that U-Net: {shown}")
    return params


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
