"""Define the rows of the tables of claims: what each changes in a config, and the paper's number.

A table is a claim of a paper at a size that a processor core can train: the same networks on the
same small images, with one switch changed in each row. The numbers of the papers are those of
CIFAR-10 at T = 4, unless they say otherwise; the order of the rows is what can be compared.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ddgan_jax.config.checks import validate
from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError, did_you_mean, shown

Overrides = Mapping[str, Any]


class Row(NamedTuple):
    """A row of a table.

    overrides: the fields of the config that it changes. paper: the paper's number, "" without one.
    steps: numbers of sampling steps other than the trained one, which are measured as well.
    """

    title: str
    overrides: Overrides
    paper: str = ""
    steps: tuple[int, ...] = ()


class Table(NamedTuple):
    """Rows that are compared with each other.

    config: a config that ships; overrides: what all rows change in it. samples: images that are
    drawn for the numbers.
    """

    title: str
    config: str
    overrides: Overrides
    samples: int
    rows: Mapping[str, Row]


_DDGAN = {
    "T1": Row("T = 1", {"diffusion.num_timesteps": 1}, "FID 14.6, recall 0.19"),
    "T2": Row("T = 2", {"diffusion.num_timesteps": 2}, "FID 4.08, recall 0.54"),
    "T4": Row("T = 4", {}, "FID 3.75, recall 0.57"),
    "T8": Row("T = 8", {"diffusion.num_timesteps": 8}, "FID 4.36, recall 0.56"),
    "no_latent": Row(
        "T = 4, no latent: unimodal", {"generator.latent": "none"}, "FID 20.6, recall 0.42"
    ),
    "direct": Row(
        "T = 4, direct denoising: x_t",
        {"objective.prediction": "x_t"},
        "FID 6.03, recall 0.53",
    ),
    "noise": Row(
        "T = 4, noise generation", {"objective.prediction": "noise"}, "FID 8.04, recall 0.52"
    ),
    "augmentation": Row(
        "one-shot GAN, diffusion as augmentation",
        {
            "diffusion.num_timesteps": 1,
            "objective.joint": False,
            "objective.augmentation_timesteps": 4,
        },
        "FID 13.2, recall 0.25",
    ),
}

_WITH_C = {"objective.afd_regression": True}
_SIDDM = {
    "weight_0": Row("AFD weight 0", {"objective.afd_weight": 0.0}, "FID 77.15"),
    "weight_0.1": Row("AFD weight 0.1", {"objective.afd_weight": 0.1}, "FID 3.32"),
    "weight_0.5": Row("AFD weight 0.5", {"objective.afd_weight": 0.5}, "FID 2.63"),
    "default": Row("AFD weight 1, recon without C: the default", {}, "FID 2.24", (1, 2, 4, 8)),
    "weight_2": Row("AFD weight 2", {"objective.afd_weight": 2.0}),
    "without_r": Row("without the regulariser R", {"objective.denoising_weight": 0.0}, "FID 3.20"),
    "recon_c": Row("recon with C", _WITH_C),
    "kl_c": Row("kl with C", _WITH_C | {"objective.afd_form": "kl"}),
    "likelihood": Row(
        "kl with C, likelihood weight",
        _WITH_C | {"objective.afd_form": "kl", "objective.afd_scaling": "likelihood"},
    ),
    "code": Row("code, without C", {"objective.afd_form": "code"}),
}

TABLES = {
    "stacked_ddgan": Table("DDGAN on stacked digits", "stacked_digits_ddgan", {}, 26_000, _DDGAN),
    "stacked_siddm": Table("SIDDM on stacked digits", "stacked_digits_siddm", {}, 26_000, _SIDDM),
    "digits_siddm": Table(
        "SIDDM on digits by class",
        "digits_siddm",
        # The networks of the stacked digits, which take half the time of those of this config.
        {
            f"{role}.{field}": value
            for role in ("generator", "discriminator")
            for field, value in (("channel_multipliers", (1,)), ("updown_order", "imagen"))
        }
        | {"diffusion.num_timesteps": 4, "train.num_steps": 1_000},
        2_000,
        _SIDDM,
    ),
}


def row_config(table: str, row: str, seed: int) -> ConfigDict:
    """Return the checked config of a row. Raises UserError for names that are not known."""
    t = _known("table", table, TABLES)
    r = _known("row", row, t.rows)
    config = load_config(t.config)
    config.update_from_flattened_dict({**t.overrides, **r.overrides, "train.seed": seed})
    validate(config, 1)
    return config


def sampling_steps(table: str, row: str) -> tuple[int, ...]:
    """Return the numbers of sampling steps of a row, with the trained one, in rising order."""
    trained = row_config(table, row, 0).diffusion.num_timesteps
    return tuple(sorted({trained, *TABLES[table].rows[row].steps}))


def _known(what: str, name: str, there: Mapping[str, Any]) -> Any:
    if name not in there:
        hint = did_you_mean(name, there) or f"; known: {', '.join(there)}"
        raise UserError(f"{what} {shown(repr(name))} is not known{hint}")
    return there[name]
