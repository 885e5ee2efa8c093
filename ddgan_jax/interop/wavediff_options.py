"""Convert the options of the published WaveDiff code, which grew out of the DDGAN code.

What is not said here is as in `nvlabs_options`. The images of an option `num_channels` are their
bands: four for each colour. What decides the order of the bands is the library of the transform.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config import LARGEST_IMAGE, base_config, wavediff_config
from ddgan_jax.config.shapes import CONVOLUTIONAL, FEWEST_BLOCKS
from ddgan_jax.errors import UserError
from ddgan_jax.interop import nvlabs_options, options
from ddgan_jax.interop.nvlabs_options import Datasets, Fields, Others

# Our data set for each official --dataset, and how many images an epoch of it has.
_DATASETS: Datasets = {**nvlabs_options.DATASETS, "stl10": ("stl10", 100_000)}
# The official scripts take the large discriminator for every other set.
_SMALL_DISCRIMINATOR = ("cifar10", "stl10")

_FIELDS: Fields = {
    # Channels are those of the bands, so that they are no field.
    option: field
    for option, field in nvlabs_options.FIELDS.items()
    if option != "num_channels"
}
_OTHERS: Others = {
    **nvlabs_options.OTHERS,
    "num_channels": (12, options.integer(4, 12)),
    "current_resolution": (256, options.integer(1, LARGEST_IMAGE)),
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
    "large" overrides the choice by `dataset`. Raises UserError for values that are not possible.
    """
    given = read_options(args)
    size, resolution = given["image_size"], given["current_resolution"]
    if size != 2 * resolution:
        # The published loop transforms the image itself at each further level, and would train on
        # images of half the size without a word.
        raise UserError(
            f"official option current_resolution: the bands of {size} pixels have {size // 2}, not "
            f"{resolution}"
        )
    channels, rest = divmod(given["num_channels"], 4)
    if rest:
        raise UserError(
            f"official option num_channels: {given['num_channels']} are not four bands of a number "
            "of colours; 12 are those of RGB images"
        )
    config = wavediff_config()
    if given["net_type"] == "normal" and given["patch_size"] == 1:
        # This network has no parts of the other's, and their switches do nothing.
        config.generator = base_config().generator
    nvlabs_options.fill(config, given, _FIELDS, _DATASETS)
    config.data.channels = channels
    config.diffusion.haar_order = "hl_lh" if given["use_pytorch_wavelet"] else "lh_hl"
    config.objective.reconstruction_weight = 1.0 if given["rec_loss"] else 0.0
    if config.generator.name == "wavelet":
        wavelet = given["net_type"] == "wavelet"
        config.generator.wavelet_blocks = wavelet and not given["no_use_freq"]
        config.generator.wavelet_middle = wavelet and not given["no_use_fbn"]
        config.generator.wavelet_pyramid = wavelet and not given["no_use_residual"]
        config.generator.patch_size = given["patch_size"]
    small = given["dataset"] in _SMALL_DISCRIMINATOR
    config.discriminator.name = given["discriminator"] or ("small" if small else "large")
    # The official code takes numbers beyond the ends as the ends.
    most = len(CONVOLUTIONAL[config.discriminator.name].width_multipliers)
    config.discriminator.num_blocks = min(max(given["num_disc_layers"], FEWEST_BLOCKS), most)
    return config


def check_config(config: ConfigDict) -> None:
    """Refuse a config whose networks cannot be built, as `nvlabs_options.check_config`."""
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
        "attn_resolutions": (),
    },
}
