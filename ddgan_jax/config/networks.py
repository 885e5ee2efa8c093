"""Declare the fields of each network, of which config.generator and config.discriminator name one.

`NETWORKS["generator"]["unet"]` holds the fields of a group by name. `GENERATORS["unet"]()` and
`DISCRIMINATORS["unet"]()` return new groups with the defaults.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config.schema import (
    MOST_CHANNELS,
    MOST_LAYERS,
    Field,
    Section,
    check_is_group,
    make,
    positive,
)
from ddgan_jax.errors import UserError


def _width(default: int, sentence: str, unit: str = "channels") -> Field:
    return Field(default, sentence, unit, above=0, at_most=MOST_CHANNELS)


def _embedding(default: int) -> Field:
    return Field(
        default,
        "Width of the embedding of the time, which holds sines and cosines of two or more "
        "frequencies.",
        "channels",
        at_least=4,
        at_most=MOST_CHANNELS,
    )


def _latent(default: str, *choices: str) -> Field:
    return Field(
        default,
        'Distribution of the latent z; "none" sets it to 0, which makes the denoising distribution '
        "unimodal.",
        choices=choices,
    )


def _levels(base: int, multipliers: tuple[int, ...], attention: tuple[int, ...]) -> Section:
    """Return the fields of a U-Net's levels, with these defaults."""
    return {
        "base_channels": _width(base, "Channels of which every level has a multiple."),
        "channel_multipliers": positive(
            multipliers,
            "Width of each level in base_channels; each level has half the resolution of the one "
            "before it.",
            at_most=1024,
        ),
        "num_res_blocks": positive(2, "Residual blocks per level.", "blocks", at_most=MOST_LAYERS),
        "attention_resolutions": positive(
            attention, "Resolutions of the levels that have attention.", "pixels"
        ),
    }


def _dropout(default: float) -> Field:
    return Field(default, "Probability of dropout in each residual block.", at_least=0, below=1)


_NCSNPP = _levels(128, (1, 2, 2, 2), (16,)) | {
    "dropout": _dropout(0.0),
    "resblock": Field(
        "biggan",
        'Kind of the residual blocks; "ddpm" never resamples, "biggan_oneadagn" has one adaptive '
        "normalisation.",
        choices=("ddpm", "biggan", "biggan_oneadagn"),
    ),
    "progressive": Field(
        "none",
        "How the output is built from the levels.",
        choices=("none", "output_skip", "residual"),
    ),
    "progressive_input": Field(
        "residual",
        "How the downsampled input enters the levels.",
        choices=("none", "input_skip", "residual"),
    ),
    "progressive_combine": Field(
        "sum",
        "How the downsampled input joins the features.",
        choices=("sum", "cat"),
        needs={"progressive_input": "input_skip"},
    ),
    "resample_with_conv": Field(True, "Resample with convolutions.", needs={"resblock": "ddpm"}),
    "fir": Field(
        True,
        "Resample with an FIR filter; without it by means of 2 x 2 pixels and nearest neighbours.",
    ),
    "fir_kernel": Field(
        (1.0, 3.0, 3.0, 1.0),
        "Taps of the FIR filter, which are divided by their sum.",
        needs={"fir": True},
    ),
    "skip_rescale": Field(True, "Divide residual sums by the square root of 2."),
    "time_embedding": Field(
        "positional",
        'Embedding of the time; "fourier" embeds log(t), which is not defined at t = 0.',
        choices=("positional", "fourier"),
    ),
    "fourier_scale": positive(
        16.0,
        "Standard deviation of the frequencies of the fourier embedding.",
        needs={"time_embedding": "fourier", "time_conditional": True},
    ),
    "time_conditional": Field(True, "Tell the network the time t."),
    "centered": Field(True, "Inputs lie in [-1, 1]; without it in [0, 1], and are mapped."),
    "output_tanh": Field(True, "Pass the output through tanh."),
    "latent": _latent("normal", "normal", "none"),
    "latent_dim": _width(100, "Length of the latent z.", ""),
    "latent_embedding_dim": _width(256, "Width of the network that maps the latent z."),
    "latent_layers": Field(
        3,
        "Hidden layers of the network that maps the latent z, after its first.",
        "layers",
        at_least=0,
        at_most=MOST_LAYERS,
    ),
}

# The generator of WaveDiff.
_WAVELET = _NCSNPP | {
    "wavelet_blocks": Field(
        True,
        "Residual blocks resample by Haar transforms, and hand details from the way down to the "
        "way up.",
    ),
    "wavelet_middle": Field(True, "The blocks in the middle work on the low Haar band alone."),
    "wavelet_pyramid": Field(
        True,
        "The input joins the levels by its Haar bands.",
        needs={"progressive_input": "residual"},
    ),
    "patch_size": positive(
        1,
        "Side of the patches of the input that become channels; 1 leaves the input as it is.",
        "pixels",
        at_most=16,
    ),
}

_CONVOLUTIONAL = {
    "base_channels": _width(64, "Channels of which every block has a multiple."),
    # Both networks have the same default, so that one's name may take the place of the other's.
    "num_blocks": Field(
        0,
        'Use only the first so many residual blocks, of 4 in "small" and 6 in "large", for smaller '
        "images; 0 uses all.",
        "blocks",
        at_least=0,
        at_most=6,
    ),
    "time_embedding_dim": _embedding(256),
    "stddev_groups": Field(
        "spread",
        'Which four images a minibatch standard deviation compares: "spread" over the images of a '
        'device, as published, or "neighbours" in the batch, which does not depend on the number '
        "of devices.",
        choices=("spread", "neighbours"),
    ),
}

# The ADM U-Net is generator and discriminator of SIDDM. The widths are those of SIDDM on CIFAR-10.
_UNET = _levels(256, (2, 2, 2), (16, 8)) | {
    "dropout": _dropout(0.1),
    "num_heads": positive(
        4,
        "Number of heads of each attention layer.",
        at_most=MOST_CHANNELS,
        needs={"head_channels": False},
    ),
    "head_channels": Field(
        64,
        "Channels of each attention head, which decide the number of heads; 0 takes num_heads.",
        "channels",
        at_least=0,
        at_most=MOST_CHANNELS,
    ),
    "scale_shift_norm": Field(
        True, "Time and class scale and shift the normalised features; without it they are added."
    ),
    "resblock_updown": Field(False, "Resample inside of residual blocks; without it between them."),
    "resample_with_conv": Field(
        True, "Resample with convolutions.", needs={"resblock_updown": False}
    ),
    "updown_order": Field(
        "imagen",
        'Order of blocks and resampling; "imagen" resamples first on the way down and last on the '
        'way up, so that no block runs at full resolution, "adm" the other way round.',
        choices=("adm", "imagen"),
    ),
    "remat_resolutions": positive(
        (),
        "Resolutions of the levels whose activations are computed again in the backward pass, "
        "which saves memory.",
        "pixels",
    ),
}


def _mlp(hidden_layers: int) -> Section:
    return {
        "width": _width(100, "Width of the hidden layers.", "units"),
        "hidden_layers": positive(
            hidden_layers, "Number of hidden layers.", "layers", at_most=MOST_LAYERS
        ),
        "time_embedding_dim": _embedding(128),
    }


def _logits(default: int, where: str) -> Field:
    return _width(default, f"Logits of {where}.", "")


_ANY_LATENT = ("normal", "uniform", "none")
_GROUPS: dict[str, dict[str, Section]] = {
    "generator": {
        "ncsnpp": _NCSNPP,
        "wavelet": _WAVELET,
        "unet": _UNET
        | {
            "latent": Field(
                "normal",
                "Distribution of the latent z, which enters as further channels of the input; "
                '"none" leaves it out, which makes the denoising distribution unimodal.',
                choices=_ANY_LATENT,
            )
        },
        "mlp": _mlp(3)
        | {
            "latent": _latent("uniform", *_ANY_LATENT),
            "latent_dim": _width(2, "Length of the latent z.", ""),
        },
    },
    "discriminator": {
        "small": _CONVOLUTIONAL,
        "large": _CONVOLUTIONAL,
        "unet": _UNET | {"num_logits": _logits(1, "each pixel")},
        "mlp": _mlp(4) | {"num_logits": _logits(2, "each point")},
    },
}
_NAME = {
    "generator": "The network: NCSN++ of DDGAN, or with the Haar transforms of WaveDiff, the U-Net "
    "of SIDDM, or an MLP for points.",
    "discriminator": "The network: DDGAN's for images of 8 pixels on or of 64 pixels on, the U-Net "
    "of SIDDM, or an MLP for points.",
}

# The field `name` is declared here for all networks at once, since its choices are the keys of the
# table.
NETWORKS: dict[str, dict[str, Section]] = {
    role: {
        name: {"name": Field(name, _NAME[role], choices=tuple(groups))} | group
        for name, group in groups.items()
    }
    for role, groups in _GROUPS.items()
}


# The networks that can be told the class of an image.
WITH_CLASSES = ("unet",)


def network_fields(role: str, group: Any) -> Section:
    """Return the fields of the network that a group of fields names.

    role: "generator" or "discriminator". group: anything at all. Raises UserError unless it names a
    network.
    """
    check_is_group(f"{role}.", group)
    if "name" not in group:
        raise UserError(f"{role}.name is missing")
    networks = NETWORKS[role]
    # Every network of a role declares the same choices for `name`, so that any of them can check
    # it.
    next(iter(networks.values()))["name"].check(f"{role}.name", group["name"])
    return networks[group["name"]]


def _makers(role: str) -> Mapping[str, Callable[[], ConfigDict]]:
    return {name: functools.partial(make, section) for name, section in NETWORKS[role].items()}


GENERATORS = _makers("generator")
DISCRIMINATORS = _makers("discriminator")
