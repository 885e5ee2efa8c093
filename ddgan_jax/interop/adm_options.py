"""Convert the options of guided-diffusion (ADM): those of its U-Net, or of its scripts' flags."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config import LARGEST_IMAGE
from ddgan_jax.config.schema import MOST_CHANNELS, MOST_CLASSES, MOST_LAYERS
from ddgan_jax.interop import options
from ddgan_jax.models import unet

# The official defaults of the network's constructor and of the scripts' flags differ; those of
# _SHARED hold for both.
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
# The scripts choose the multipliers by image size if channel_mult is "".
_CHANNEL_MULT = {
    "64": (1, 2, 3, 4),
    "128": (1, 1, 2, 3, 4),
    "256": (1, 1, 2, 2, 4, 4),
    "512": (0.5, 1, 1, 2, 2, 4, 4),
}
# The classes of ImageNet, the only labelled set that the scripts know.
_NUM_CLASSES = 1000


def config_from_args(args: Any) -> ConfigDict:
    """Return the fields of `unet.UNet` for official options, with in_channels and attention_order.

    args: A mapping or argparse namespace, either of the constructor's arguments (recognised by
    model_channels) or of the scripts' flags. In both, attention_resolutions is a string of pixels
    ("32,16,8") or a sequence of downsampling rates, and channel_mult is a string or a sequence. A
    missing option takes the official default, and unknown ones are ignored. use_checkpoint becomes
    rematerialisation of every level. Raises UserError for values that are not possible.
    """
    args = options.mapping(args, _PROGRAM)
    args = _SHARED | (_CONSTRUCTOR | args if "model_channels" in args else _from_flags(args))
    # dims is checked and then dropped: the constructor also builds networks for signals and
    # volumes.
    _read(args, "dims", _two)

    size = _read(args, "image_size", options.integer(1, LARGEST_IMAGE))
    multipliers = _read(args, "channel_mult", lambda value: _multipliers(size, value))
    pixels = tuple(size // 2**level for level in range(len(multipliers)))
    # Both forms of the option become rates of downsampling first, and our pixels from these.
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
    # The options are possible one by one; this checks that they fit together.
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
    # With learn_sigma the network also predicts a variance for each of the three channels.
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
        # The reader takes -1 and up, and 0 lies between "not set" and the positive numbers.
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
