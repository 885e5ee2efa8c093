"""Fields that somebody has set and that nothing would read: silence would hide a mistake."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ml_collections import ConfigDict

from ddgan_jax.config import DISCRIMINATORS, GENERATORS, base_config, resolutions
from ddgan_jax.errors import UserError


class _Rule(NamedTuple):
    """A field of a group, whether anything reads it, and what it needs to be read."""

    field: str
    is_read: Callable[[ConfigDict], bool]
    needs: str


_NCSNPP = (
    _Rule("fir_kernel", lambda g: g.fir, "fir=True"),
    _Rule("resample_with_conv", lambda g: g.resblock == "ddpm", "resblock='ddpm'"),
    _Rule(
        "progressive_combine",
        lambda g: g.progressive_input == "input_skip",
        "progressive_input='input_skip'",
    ),
    _Rule(
        "fourier_scale",
        lambda g: g.time_embedding == "fourier" and g.time_conditional,
        "time_embedding='fourier' and time_conditional=True",
    ),
)
_UNET = (
    _Rule("num_heads", lambda u: not u.head_channels, "head_channels=0"),
    _Rule("resample_with_conv", lambda u: not u.resblock_updown, "resblock_updown=False"),
)
_OPTIMIZER = (_Rule("final_learning_rate", lambda o: o.decay_steps > 0, "decay_steps > 0"),)
_RULES = {"ncsnpp": _NCSNPP, "unet": _UNET, "optimizer": _OPTIMIZER}


def check_effects(config: ConfigDict) -> None:
    """Refuse fields that nothing would read, unless they have their defaults.

    What is often switched off for one run on the command line keeps its other fields without a
    word: R1, the evaluation during a run, AFD. Resolutions must be those of some level even by
    default. The config must have passed `check_model`. Raises UserError.
    """
    for section, kind, default in _groups(config):
        group = config[section]
        for field, is_read, needs in _RULES.get(kind, ()):
            if group[field] != default[field] and not is_read(group):
                raise UserError(
                    f"{section}.{field}={group[field]} has no effect: it needs {needs}; "
                    f"take it back to {default[field]}"
                )
        for field in ("attention_resolutions", "remat_resolutions"):
            _check_resolutions(config, section, field)


def _groups(config: ConfigDict) -> Iterator[tuple[str, str, ConfigDict]]:
    """Yield the groups of fields, the kind of each, and its defaults."""
    for section, networks in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        name = config[section].name
        yield section, name, networks[name]()
    yield "optimizer", "optimizer", base_config().optimizer


def _check_resolutions(config: ConfigDict, section: str, field: str) -> None:
    network = config[section]
    if field not in network:
        return
    there = resolutions(network, config.data.image_size)
    for pixels in network[field]:
        if pixels not in there:
            raise UserError(
                f"{section}.{field}={network[field]}: no level has {pixels} pixels; "
                f"there are {', '.join(map(str, there))}"
            )
