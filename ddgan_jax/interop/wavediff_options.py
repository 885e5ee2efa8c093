"""Convert the options of the published WaveDiff code, which grew out of the DDGAN code.

What is not said here is as in `nvlabs_options`. `num_channels` counts those of the bands, four for
each colour. `use_pytorch_wavelet` says which library transforms, and so how the bands are ordered.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config import LARGEST_IMAGE, base_config, input_size, resolutions, wavediff_config
from ddgan_jax.config.shapes import CONVOLUTIONAL, FEWEST_BLOCKS
from ddgan_jax.errors import UserError
from ddgan_jax.interop import nvlabs_options, options
from ddgan_jax.interop.nvlabs_options import DataSet, Datasets, Fields, Others

_DATASETS: Datasets = {
    **nvlabs_options.DATASETS,
    "stl10": DataSet("stl10", 100_000, split="unlabelled"),
    # The official code does not say how many images it read; these are all that there are.
    "celeba_512": DataSet("celeb_a_hq/512", 30_000),
    "celeba_1024": DataSet("celeb_a_hq/1024", 30_000),
}
# The official scripts take the large discriminator for every other set.
_SMALL_DISCRIMINATOR = ("cifar10", "stl10")

_FIELDS: Fields = {
    # Channels are those of the bands, so that they are no field.
    option: field
    for option, field in nvlabs_options.FIELDS.items()
    if option != "num_channels"
} | {
    "attn_resolutions": (
        "generator.attention_resolutions",
        (16,),
        # A published command says 0, which no level has, for no attention.
        options.sequence(options.integer(0, LARGEST_IMAGE), least=0),
    )
}
_OTHERS: Others = {
    **nvlabs_options.OTHERS,
    "num_channels": (12, options.integer(4, 12)),
    "current_resolution": (256, options.integer(1, LARGEST_IMAGE)),
    # The official loop overwrites image_size by current_resolution, and saves this beside them.
    "ori_image_size": (None, options.optional(options.integer(1, LARGEST_IMAGE))),
    "patch_size": (1, options.integer(1, 16)),
    "net_type": ("normal", options.choice("normal", "wavelet")),
    "num_disc_layers": (6, options.integer(0, 100)),
    "use_pytorch_wavelet": (False, options.optional(options.boolean)),
    "rec_loss": (False, options.optional(options.boolean)),
    "no_use_fbn": (False, options.optional(options.boolean)),
    "no_use_freq": (False, options.optional(options.boolean)),
    "no_use_residual": (False, options.optional(options.boolean)),
}
_DECIDED_BY = {
    "data.channels": "num_channels",
    "diffusion.space": "current_resolution",
    "diffusion.haar_order": "use_pytorch_wavelet",
    "discriminator.num_blocks": "num_disc_layers",
    "generator.name": "net_type",
    "generator.patch_size": "patch_size",
    "generator.wavelet_blocks": "no_use_freq",
    "generator.wavelet_middle": "no_use_fbn",
    "generator.wavelet_pyramid": "no_use_residual",
    "objective.reconstruction_weight": "rec_loss",
}


def read_options(args: Any) -> dict[str, Any]:
    """Return every official option that is known here, as `nvlabs_options.read_options`."""
    return nvlabs_options.read_options(args, _FIELDS, _OTHERS)


def config_from_args(args: Any) -> ConfigDict:
    """Return our config for the official command-line arguments.

    args: A mapping or argparse namespace with the official names. `discriminator` = "small" or
    "large" overrides the choice by `dataset`, or by size where no data set is named. Raises
    UserError for values that are not possible.
    """
    given = read_options(args)
    if given["num_channels"] not in (4, 12):
        raise UserError(
            f"official option num_channels: {given['num_channels']} is neither 4, the bands of a "
            "gray image, nor 12, those of an RGB image"
        )
    config = wavediff_config()
    if given["net_type"] == "normal" and given["patch_size"] == 1:
        # This network has no parts of the other's, and their switches do nothing.
        config.generator = base_config().generator
    nvlabs_options.fill(config, given, _FIELDS, _DATASETS)
    config.data.image_size = _image_size(given)
    config.data.channels = given["num_channels"] // 4
    config.diffusion.haar_order = "hl_lh" if given["use_pytorch_wavelet"] else "lh_hl"
    config.objective.reconstruction_weight = 1.0 if given["rec_loss"] else 0.0
    if config.generator.name == "wavelet":
        wavelet = given["net_type"] == "wavelet"
        config.generator.wavelet_blocks = wavelet and not given["no_use_freq"]
        config.generator.wavelet_middle = wavelet and not given["no_use_fbn"]
        config.generator.wavelet_pyramid = wavelet and not given["no_use_residual"]
        config.generator.patch_size = given["patch_size"]
    # Two published commands ask for attention at resolutions that no level has, and get none.
    there = resolutions(config.generator, input_size(config, "generator"))
    config.generator.attention_resolutions = tuple(
        pixels for pixels in given["attn_resolutions"] if pixels in there
    )
    _choose_discriminator(config, given)
    return config


def _image_size(given: Mapping[str, Any]) -> int:
    """Return the pixels of the images whose bands have official option current_resolution."""
    option = "image_size" if given["ori_image_size"] is None else "ori_image_size"
    if given[option] != 2 * given["current_resolution"]:
        # The published loop transforms the image itself at each further level, and would train on
        # images of half the size without a word.
        raise UserError(
            f"official option {option}={given[option]} is not twice official option "
            f"current_resolution={given['current_resolution']}, the size of its bands"
        )
    return given[option]


def _choose_discriminator(config: ConfigDict, given: Mapping[str, Any]) -> None:
    """Set the discriminator that the official code takes for these options, in place."""
    # Weights alone come without a data set; below this size the large network has too few pixels.
    small = given["dataset"] in _SMALL_DISCRIMINATOR or (
        given["dataset"] is None and given["current_resolution"] < 64
    )
    d = config.discriminator
    d.name = given["discriminator"] or ("small" if small else "large")
    # The official code takes numbers beyond the ends as the ends.
    most = len(CONVOLUTIONAL[d.name].width_multipliers)
    blocks = max(given["num_disc_layers"], FEWEST_BLOCKS)
    d.num_blocks = 0 if blocks >= most else blocks


def check_config(config: ConfigDict) -> None:
    """Refuse a config whose networks cannot be built, as `nvlabs_options.check_config`."""
    g = config.generator
    # The rule of our fields would advise no_use_freq=False: the official switch is the opposite.
    if g.get("wavelet_blocks", False) and g.resblock == "biggan_oneadagn":
        raise UserError(
            f"official option resblock_type={g.resblock!r} has no form with Haar transforms; use "
            "'biggan', or official option no_use_freq=True"
        )
    nvlabs_options.check_config(config, _FIELDS, _DECIDED_BY)


# The published commands, as the official parser reads them.
_ALL: Mapping[str, Any] = {
    "num_res_blocks": 2,
    "use_ema": True,
    "rec_loss": True,
    "net_type": "wavelet",
    "attn_resolutions": (16,),
}
_32_AND_64 = _ALL | {
    "n_mlp": 4,
    "batch_size": 256,
    "lr_g": 1.6e-4,
    "lr_d": 1.25e-4,
    "r1_gamma": 0.02,
    "lazy_reg": 15,
    "use_pytorch_wavelet": True,
}
_256 = _ALL | {
    "image_size": 256,
    "current_resolution": 128,
    "num_channels_dae": 64,
    "ch_mult": (1, 2, 2, 2, 4),
    "num_disc_layers": 5,
    "num_epoch": 500,
    "lr_d": 1e-4,
    "lazy_reg": 10,
}
_512_AND_1024 = _ALL | {
    "num_timesteps": 2,
    "num_channels_dae": 64,
    "ch_mult": (1, 1, 2, 2, 4, 4),
    "num_disc_layers": 6,
    "batch_size": 4,
    "num_process_per_node": 8,
    "num_epoch": 400,
    "lr_g": 2e-4,
    "lr_d": 1e-4,
    "r1_gamma": 2.0,
    "lazy_reg": 10,
}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "cifar10": _32_AND_64
    | {
        "dataset": "cifar10",
        "current_resolution": 16,
        "net_type": "normal",
        "attn_resolutions": (32,),
        "ch_mult": (1, 2, 2),
        "num_disc_layers": 3,
        "num_epoch": 1800,
    },
    "stl10": _32_AND_64
    | {
        "dataset": "stl10",
        "image_size": 64,
        "current_resolution": 32,
        "ch_mult": (1, 2, 2, 2),
        "num_disc_layers": 4,
        "num_epoch": 900,
    },
    "celebahq256": _256
    | {
        "dataset": "celeba_256",
        "num_timesteps": 2,
        "batch_size": 32,
        "num_process_per_node": 2,
        "lr_g": 2e-4,
        "r1_gamma": 2.0,
    },
    "lsun_church256": _256
    | {
        "dataset": "lsun",
        "use_pytorch_wavelet": True,
        "batch_size": 16,
        "num_process_per_node": 4,
        "lr_g": 1.6e-4,
        "r1_gamma": 1.0,
        "ema_decay": 0.999,
    },
    "celebahq512": _512_AND_1024
    | {
        "dataset": "celeba_512",
        "image_size": 512,
        "current_resolution": 256,
        "use_pytorch_wavelet": True,
    },
    "celebahq1024": _512_AND_1024
    | {
        "dataset": "celeba_1024",
        "image_size": 1024,
        "current_resolution": 512,
        "patch_size": 2,
        "attn_resolutions": (0,),
    },
}
