"""Compute the shapes inside of networks, by arithmetic on integers.

The networks are built by it, and configs are checked by it before JAX is imported: a network is
refused exactly where it could not be built. `network` is anything that has a network's fields as
attributes: a group of a config, or the module itself.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ddgan_jax.config.schema import LARGEST
from ddgan_jax.errors import UserError

# Images that DDGAN's discriminators compare in one minibatch standard deviation.
STDDEV_GROUP_SIZE = 4
# Groups of every normalisation in the U-Net, whatever the width of the layer.
UNET_GROUPS = 32


class Blocks(NamedTuple):
    """The blocks of one of DDGAN's discriminators.

    width_multipliers: the width of each block in base_channels. first_down: the first block that
    halves the resolution; all later ones do.
    """

    width_multipliers: tuple[int, ...]
    first_down: int

    def first(self, count: int) -> "Blocks":
        """Return the first `count` of the blocks, as for smaller images in WaveDiff; 0: all."""
        return self._replace(width_multipliers=self.width_multipliers[: count or None])

    @property
    def factor(self) -> int:
        """Return the number that the image size must be a multiple of."""
        # Each block from `first_down` on halves the resolution, and no half pixel may be left over.
        return 2 ** (len(self.width_multipliers) - self.first_down)


CONVOLUTIONAL = {
    "small": Blocks((2, 4, 8, 8), first_down=1),
    "large": Blocks((4, 8, 8, 8, 8, 8), first_down=0),
}
# Each of the blocks after these halves an image that is small already.
FEWEST_BLOCKS = 3


def diffused_shape(config: Any) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of an example in the space that is diffused.

    Haar bands are four images of half the size, as channels of one. config: one with the sections
    `data` and `diffusion`.
    """
    size, channels = config.data.image_size, config.data.channels
    if config.diffusion.space == "haar":
        size, channels = size // 2, 4 * channels
    return size, size, channels


def input_shrinks(config: Any, role: str) -> int:
    """Return how many times smaller the first layer's input is than the image.

    Bands halve it, and patches divide it by their side. role: "generator" or "discriminator".
    """
    by_space = 2 if config.diffusion.space == "haar" else 1
    return by_space * getattr(config[role], "patch_size", 1)


def input_size(config: Any, role: str) -> int:
    """Return the pixels of the first layer's input in the network of a role."""
    return config.data.image_size // input_shrinks(config, role)


def resolutions(network: Any, image_size: int) -> tuple[int, ...]:
    """Return the pixels of each level of a network that has levels, the full resolution first.

    image_size: that of the network's input. The U-Net's order "imagen" halves before the first
    level.
    """
    first = _halvings_before(network)
    levels = len(network.channel_multipliers)
    return tuple(image_size // 2**level for level in range(first, first + levels))


def width(network: Any, level: int) -> int:
    """Return the channels of a level."""
    # ADM's networks for 512 pixels have a multiplier of 0.5, so that multipliers may be floats.
    return int(network.base_channels * network.channel_multipliers[level])


def _halvings_before(network: Any) -> int:
    return int(getattr(network, "updown_order", "adm") == "imagen")


def check_levels(
    network: Any, image_size: int, *, shrinks: int = 1, group: str = "", size: str = ""
) -> None:
    """Refuse a network without levels, and an image size that cannot be halved so many times.

    shrinks: as `input_shrinks` says. group, size: prefixes of the network's fields and of
    image_size in messages, such as "generator." and "data.". Raises UserError.
    """
    levels = len(network.channel_multipliers)
    if not levels:
        raise UserError(f"{group}channel_multipliers is empty; give one number per level")
    # Blocks that work on the low Haar band alone halve the deepest level once more.
    splits_middle = getattr(network, "wavelet_middle", False)
    halvings = levels - 1 + _halvings_before(network) + splits_middle
    if image_size % (shrinks * 2**halvings):
        order = getattr(network, "updown_order", "")
        in_order = f" in the order {order!r}" if order else ""
        after = " and for its middle" if splits_middle else ""
        seen = f", of which the first layer sees {image_size // shrinks}," if shrinks > 1 else ""
        raise UserError(
            f"{size}image_size={image_size}{seen} cannot be halved {halvings} times for the "
            f"{levels} levels of {group}channel_multipliers{in_order}{after}; use a multiple of "
            f"{shrinks * 2**halvings}"
        )


# ---- NCSN++


def num_groups(channels: int) -> int:
    """Return the groups of NCSN++'s normalisations: at most 32, each of 4 channels or more."""
    return min(channels // 4, 32)


def check_ncsnpp_widths(network: Any, group: str = "") -> None:
    """Refuse an NCSN++ with a layer whose channels cannot be normalised in equal groups.

    group: the prefix of fields in messages. Raises UserError.
    """

    def fails(channels: int) -> bool:
        groups = num_groups(channels)
        return groups == 0 or channels % groups != 0

    def works(base_channels: int) -> bool:
        return not any(fails(c) for _, c in ncsnpp_widths(network, base_channels))

    base = network.base_channels
    for place, channels in ncsnpp_widths(network, base):
        if fails(channels):
            # Every multiple of 32 works.
            raise UserError(
                f"{group}base_channels={base}: group normalisation cannot split the "
                f"{channels} channels {place} into {max(1, num_groups(channels))} equal groups of "
                f"4 or more; use {nearest_that_work(base, works, reach=32)}"
            )


def ncsnpp_widths(network: Any, base_channels: int) -> Iterator[tuple[str, int]]:
    """Yield (place, channels) for all kinds of layers that the NCSN++ generator normalises.

    base_channels: in the place of the network's own.
    """
    # This follows the network's `_encode` and `_decode`, as a test compares. Every residual block
    # after the second of a level normalises the same widths as the second.
    blocks = min(network.num_res_blocks, 2)
    widths = [base_channels * multiplier for multiplier in network.channel_multipliers]
    concatenates = (
        network.progressive_input == "input_skip" and network.progressive_combine == "cat"
    )
    # `h` follows the channels of the features, `skips` those of the outputs that the way up takes
    # back.
    h, skips = base_channels, [base_channels]
    for level, channels in enumerate(widths):
        yield from ((f"of level {level} on the way down", c) for c in (h, channels))
        h = channels
        skips += [channels] * blocks
        if level + 1 < len(widths):
            h = 2 * channels if concatenates else channels
            skips.append(h)
    yield "in the middle", h
    for level in reversed(range(len(widths))):
        for _ in range(blocks + 1):
            yield f"that level {level} concatenates on the way up", h + skips.pop()
            h = widths[level]
            yield f"of level {level} on the way up", h


# ---- the U-Net


def check_unet(
    network: Any, image_size: int, *, shrinks: int = 1, group: str = "", size: str = ""
) -> None:
    """Refuse fields of the U-Net that do not fit together. Arguments as those of `check_levels`.

    Raises UserError.
    """
    order = network.updown_order
    if order not in ("adm", "imagen"):
        raise UserError(f"{group}updown_order={order!r} is not one of adm, imagen")
    if order == "imagen" and network.resblock_updown:
        raise UserError(
            f"{group}resblock_updown=True needs {group}updown_order='adm': the other order, "
            "'imagen', resamples by convolutions"
        )
    check_levels(network, image_size, shrinks=shrinks, group=group, size=size)
    levels = range(len(network.channel_multipliers))
    if any(width(network, level) % UNET_GROUPS for level in levels):
        raise UserError(
            f"{group}base_channels={network.base_channels}: group normalisation splits the "
            f"channels of every level into {UNET_GROUPS} groups; use "
            f"{nearest_multiples(network.base_channels, UNET_GROUPS)}"
        )
    # The middle block attends at the deepest level, whatever attention_resolutions says.
    for level, pixels in enumerate(resolutions(network, image_size // shrinks)):
        if pixels in network.attention_resolutions or level == levels[-1]:
            _check_heads(network, level, group)


def _check_heads(network: Any, level: int, group: str) -> None:
    # head_channels decides the number of heads where it is not 0, and num_heads is not read then.
    fields = ["head_channels"] if network.head_channels else ["num_heads"]
    if not network.head_channels and getattr(network, "num_heads_up", 0):
        fields.append("num_heads_up")
    for field in fields:
        if width(network, level) % getattr(network, field):
            raise UserError(
                f"{group}{field}={getattr(network, field)} does not divide the "
                f"{width(network, level)} channels of level {level}, which has attention"
            )


# ---- advice


def nearest_multiples(value: int, step: int) -> str:
    """Return "16 or 24": the multiples of `step` next to `value`, which is none of them."""
    below = value // step * step
    return _either(below, below + step)


def nearest_that_work(value: int, works: Callable[[int], bool], reach: int) -> str:
    """Return "16 or 24": the numbers next to `value`, at most `reach` from it, that work."""
    below = next((n for n in range(value - 1, max(value - reach, 1) - 1, -1) if works(n)), 0)
    above = next((n for n in range(value + 1, value + reach + 1) if works(n)), 0)
    return _either(below, above)


def _either(*numbers: int) -> str:
    possible = [str(n) for n in numbers if 0 < n <= LARGEST]
    return " or ".join(possible) or "a smaller number"
