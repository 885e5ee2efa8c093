"""Checks of the networks' fields, one function for each name that a config can give."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from ddgan_jax.config.fields import (
    BELOW_ONE,
    EMBEDDING,
    MOST_CHANNELS,
    MOST_LAYERS,
    NOT_NEGATIVE,
    POSITIVE,
    check_choice,
    check_ranges,
    nearest_multiples,
    nearest_that_work,
)
from ddgan_jax.data import mixture
from ddgan_jax.errors import UserError

_WIDTH = POSITIVE.up_to(MOST_CHANNELS)
_LEVELS = {
    "base_channels": _WIDTH,
    "channel_multipliers": POSITIVE.up_to(1024),
    "num_res_blocks": POSITIVE.up_to(MOST_LAYERS),
    "attention_resolutions": POSITIVE,
    "dropout": BELOW_ONE,
}

# ---- generators, by generator.name


def _check_ncsnpp(config: ConfigDict) -> None:
    g = config.generator
    choices = {
        "resblock": ("ddpm", "biggan", "biggan_oneadagn"),
        "progressive": ("none", "output_skip", "residual"),
        "progressive_input": ("none", "input_skip", "residual"),
        "progressive_combine": ("sum", "cat"),
        "time_embedding": ("positional", "fourier"),
        "latent": ("normal", "none"),
    }
    for field, known in choices.items():
        check_choice(config, f"generator.{field}", known)
    ranges = _LEVELS | {
        "fourier_scale": POSITIVE,
        "latent_dim": _WIDTH,
        "latent_embedding_dim": _WIDTH,
        "latent_layers": NOT_NEGATIVE.up_to(MOST_LAYERS),
    }
    check_ranges(config, {f"generator.{field}": range_ for field, range_ in ranges.items()})
    if not g.channel_multipliers:
        raise UserError("generator.channel_multipliers is empty; give one number per level")
    if g.fir and not (len(g.fir_kernel) >= 2 and sum(g.fir_kernel)):
        raise UserError(
            f"generator.fir_kernel={g.fir_kernel} must be at least two taps, of a sum other than 0"
        )
    levels = len(g.channel_multipliers)
    factor = 2 ** (levels - 1)
    if config.data.image_size % factor:
        raise UserError(
            f"data.image_size={config.data.image_size} cannot be halved {levels - 1} times for the "
            f"{levels} levels of generator.channel_multipliers; use a multiple of {factor}"
        )
    _check_group_norms(g)


def _check_group_norms(g: ConfigDict) -> None:
    def fails(channels: int) -> bool:
        groups = min(channels // 4, 32)
        return groups == 0 or channels % groups != 0

    # Every multiple of 32 works.
    def works(base_channels: int) -> bool:
        return not any(fails(c) for _, c in ncsnpp_widths(g, base_channels))

    for place, channels in ncsnpp_widths(g, g.base_channels):
        if fails(channels):
            groups = max(1, min(channels // 4, 32))
            raise UserError(
                f"generator.base_channels={g.base_channels}: group normalisation cannot split the "
                f"{channels} channels {place} into {groups} equal groups of 4 or more; "
                f"use {nearest_that_work(g.base_channels, works, reach=32)}"
            )


def ncsnpp_widths(g: ConfigDict, base_channels: int) -> Iterator[tuple[str, int]]:
    """Yield (place, channels) for all kinds of layers that the NCSN++ generator normalises."""
    blocks = min(g.num_res_blocks, 2)  # all further ones are like the second
    widths = [base_channels * multiplier for multiplier in g.channel_multipliers]
    cat = g.progressive_input == "input_skip" and g.progressive_combine == "cat"
    h, skips = base_channels, [base_channels]
    for level, width in enumerate(widths):
        yield from ((f"of level {level} on the way down", c) for c in (h, width))
        h = width
        skips += [width] * blocks
        if level + 1 < len(widths):
            h = 2 * width if cat else width
            skips.append(h)
    yield "in the middle", h
    for level in reversed(range(len(widths))):
        for _ in range(blocks + 1):
            yield f"that level {level} concatenates on the way up", h + skips.pop()
            h = widths[level]
            yield f"of level {level} on the way up", h


# ---- discriminators, by discriminator.name


def _check_small(config: ConfigDict) -> None:
    _check_discriminator(config, factor=8)


def _check_large(config: ConfigDict) -> None:
    _check_discriminator(config, factor=64)


def _check_discriminator(config: ConfigDict, factor: int) -> None:
    check_choice(config, "discriminator.stddev_groups", ("spread", "neighbours"))
    check_ranges(
        config,
        {
            "discriminator.base_channels": _WIDTH,
            "discriminator.time_embedding_dim": EMBEDDING,
        },
    )
    if config.data.image_size % factor:
        name = config.discriminator.name
        raise UserError(
            f"data.image_size={config.data.image_size} does not suit discriminator.name={name!r}, "
            f"which needs a multiple of {factor}"
        )


# ---- networks of SIDDM


def _check_unet(config: ConfigDict, section: str) -> None:
    u, size = config[section], config.data.image_size
    heads = {"num_heads": _WIDTH, "head_channels": NOT_NEGATIVE.up_to(MOST_CHANNELS)}
    ranges = _LEVELS | heads | {"remat_resolutions": POSITIVE}
    check_ranges(config, {f"{section}.{field}": range_ for field, range_ in ranges.items()})
    check_choice(config, f"{section}.updown_order", ("adm", "imagen"))
    if not u.channel_multipliers:
        raise UserError(f"{section}.channel_multipliers is empty; give one number per level")
    if u.updown_order == "imagen" and u.resblock_updown:
        raise UserError(
            f"{section}.resblock_updown=True needs {section}.updown_order='adm': the other order, "
            "'imagen', resamples by convolutions"
        )
    halvings = len(u.channel_multipliers) - (u.updown_order == "adm")
    if size % 2**halvings:
        raise UserError(
            f"data.image_size={size} cannot be halved {halvings} times for the "
            f"{len(u.channel_multipliers)} levels of {section}.channel_multipliers in the order "
            f"{u.updown_order!r}; use a multiple of {2**halvings}"
        )
    if any(u.base_channels * m % 32 for m in u.channel_multipliers):
        raise UserError(
            f"{section}.base_channels={u.base_channels}: group normalisation splits the channels "
            f"of every level into 32 groups; use {nearest_multiples(u.base_channels, 32)}"
        )
    _check_attention_heads(u, size, section)


def _check_attention_heads(u: ConfigDict, size: int, section: str) -> None:
    first = size if u.updown_order == "adm" else size // 2
    field = "head_channels" if u.head_channels else "num_heads"
    deepest = len(u.channel_multipliers) - 1
    for level, multiplier in enumerate(u.channel_multipliers):
        attends = first // 2**level in u.attention_resolutions or level == deepest
        if attends and u.base_channels * multiplier % u[field]:
            raise UserError(
                f"{section}.{field}={u[field]} does not divide the "
                f"{u.base_channels * multiplier} channels of level {level}, which has attention"
            )


def _check_unet_generator(config: ConfigDict) -> None:
    _check_unet(config, "generator")
    check_choice(config, "generator.latent", ("normal", "uniform", "none"))


def _check_unet_discriminator(config: ConfigDict) -> None:
    _check_unet(config, "discriminator")
    check_ranges(config, {"discriminator.num_logits": _WIDTH})


def _check_mlp(config: ConfigDict, section: str, more: str) -> None:
    ranges = {"width": _WIDTH, "hidden_layers": POSITIVE.up_to(MOST_LAYERS), more: _WIDTH}
    ranges |= {"time_embedding_dim": EMBEDDING}
    check_ranges(config, {f"{section}.{field}": range_ for field, range_ in ranges.items()})
    if config.data.image_size != 1:
        raise UserError(
            f"{section}.name='mlp' is for the points of {', '.join(mixture.SETS)}, not for images"
        )


def _check_mlp_generator(config: ConfigDict) -> None:
    _check_mlp(config, "generator", "latent_dim")
    check_choice(config, "generator.latent", ("normal", "uniform", "none"))


def _check_mlp_discriminator(config: ConfigDict) -> None:
    _check_mlp(config, "discriminator", "num_logits")


GENERATOR_CHECKS = {
    "ncsnpp": _check_ncsnpp,
    "unet": _check_unet_generator,
    "mlp": _check_mlp_generator,
}
DISCRIMINATOR_CHECKS = {
    "small": _check_small,
    "large": _check_large,
    "unet": _check_unet_discriminator,
    "mlp": _check_mlp_discriminator,
}
