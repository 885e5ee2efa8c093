"""Describe a config in words and in JSON, for `ddgan show`.

The parts of a page are yielded as they are known: the words at once, the numbers of parameters
after the second that tracing the networks takes.
"""

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from ddgan_jax import build, models
from ddgan_jax.config import diffused_shape, has_points, method_title
from ddgan_jax.config.checks import validate
from ddgan_jax.config.model_checks import check_fields
from ddgan_jax.config.schema import Field
from ddgan_jax.inspection.costs import costs
from ddgan_jax.inspection.memory import Memory, estimate
from ddgan_jax.state import Params, num_parameters

ROLES = ("generator", "discriminator")
_TITLE_WIDTH = 15
_INDENT = " " * 6


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a page contains beside the summary.

    Attributes:
      modules: The parameters of each module.
      costs: FLOPs per image, which take seconds to count.
      memory: The memory of a device, which takes seconds as well.
      all_fields: Every field, and not only those that differ from `base`.
      base: The config that this one is compared with; None for the base config.
    """

    modules: bool = False
    costs: bool = False
    memory: bool = False
    all_fields: bool = False
    base: ConfigDict | None = None


def page(config: ConfigDict, parts: Parts, columns: int) -> Iterator[str]:
    """Yield the parts of the page about a config, in lines of so many columns where possible.

    Raises UserError if the config cannot be trained.
    """
    validate(config)
    yield from (_row(title, text, columns) for title, text in _summary(config))
    networks = dict(zip(ROLES, models.abstract_params(config), strict=True))
    for role, params in networks.items():
        text = f"{config[role].name}, {num_parameters(params):,} parameters"
        yield _row(role, text, columns)
    yield ""
    yield from _fields(config, parts, columns)
    if parts.modules:
        for role, params in networks.items():
            yield from ["", *_module_table(role, params)]
    if parts.costs:
        yield "\nGFLOP per image (matrix products and convolutions, 2 per multiply-add)"
        yield from (f"  {name:<28}{value / 1e9:>14,.2f}" for name, value in costs(config).items())
    if parts.memory:
        yield "\nMiB per device, estimated before compilation"
        rows = _memory_rows(estimate(config))
        yield from (f"  {name:<28}{value / 2**20:>14,.1f}" for name, value in rows.items())


def as_json(config: ConfigDict, parts: Parts) -> str:
    """Return everything that is known of a config as one JSON object; FLOPs and bytes as asked.

    Raises UserError if the config cannot be trained.
    """
    validate(config)
    networks = dict(zip(ROLES, models.abstract_params(config), strict=True))
    tree: dict[str, Any] = {
        "config": config.to_dict(),
        "method": build.method_name(config),
        "networks": {
            role: {
                "name": config[role].name,
                "parameters": num_parameters(params),
                "modules": {name: num_parameters(module) for name, module in params.items()},
            }
            for role, params in networks.items()
        },
        "changed": {
            path: {"default": before, "unit": field.unit, "meaning": field.sentence}
            for path, field, value, before in _declared(config, parts.base)
            if value != before
        },
    }
    if parts.costs:
        tree["flops_per_image"] = costs(config)
    if parts.memory:
        tree["bytes_per_device"] = _memory_rows(estimate(config))
    return json.dumps(tree, indent=2)


# ---- the summary


def _summary(config: ConfigDict) -> Iterator[tuple[str, str]]:
    yield "method", _objective(config)
    yield "data", _data(config)
    yield "schedule", _schedule(config)
    yield "training", _training(config)


def _objective(config: ConfigDict) -> str:
    o = config.objective
    joint = " in pairs with x_{t+1}" if o.joint else ""
    words = [
        f"{method_title(config)}: the generator predicts {o.prediction}, the "
        f"discriminator judges {o.judged}{joint}"
    ]
    words += [f"AFD {o.afd_weight:g}"] if o.afd_weight else []
    words += [f"denoising {o.denoising_weight:g}"] if o.denoising_weight else []
    words += [f"L1 {o.reconstruction_weight:g}"] if o.reconstruction_weight else []
    interval = "every step" if o.r1_interval == 1 else f"every {o.r1_interval} steps"
    words += [f"R1 {o.r1_gamma:g} {interval}"] if o.r1_gamma else []
    return "; ".join(words)


def _data(config: ConfigDict) -> str:
    d = config.data
    if has_points(config):
        return f"{d.name}, points in the plane"
    colours = {1: "gray", 3: "RGB"}[d.channels]
    words = [f"{d.name}, split {d.split}", f"{d.image_size} x {d.image_size} pixels", colours]
    words += [f"{d.num_classes:,} classes"] if d.num_classes else []
    words += ["mirrored at random"] if d.flip else []
    return ", ".join(words)


def _schedule(config: ConfigDict) -> str:
    d = config.diffusion
    steps = f"{d.num_timesteps} denoising step{'s' * (d.num_timesteps > 1)}"
    betas = f", beta from {d.beta_min:g} to {d.beta_max:g}"
    height, width, channels = diffused_shape(config)
    bands = f", on Haar bands of {height} x {width} pixels in {channels} channels"
    words = f"{d.schedule}, {steps}{betas * (d.schedule in ('vp', 'geometric'))}"
    return words + bands * (d.space == "haar")


def _training(config: ConfigDict) -> str:
    t, o = config.train, config.optimizer
    rates = f"{o.generator_learning_rate:g} and {o.discriminator_learning_rate:g}"
    decay = f", to {o.final_learning_rate:g} in {o.decay_steps:,} steps" if o.decay_steps else ""
    exact = t.matmul_precision
    products = f" with {exact} products" if exact != "default" else ""
    return (
        f"{t.num_steps:,} steps of {t.batch_size:,} images in {t.compute_dtype}{products}; "
        f"Adam with rates {rates}{decay}; average of the generator with decay {o.ema_decay:g}"
    )


def _row(title: str, text: str, columns: int) -> str:
    return _fill(text, columns, f"{title:<{_TITLE_WIDTH}}", " " * _TITLE_WIDTH)


def _fill(text: str, columns: int, first: str, hanging: str) -> str:
    return textwrap.fill(
        text, columns, initial_indent=first, subsequent_indent=hanging, break_on_hyphens=False
    )


# ---- fields


def _declared(config: ConfigDict, base: ConfigDict | None) -> Iterator[tuple[str, Field, Any, Any]]:
    """Yield each field as (full name, declaration, value, value in `base`).

    The last one is the field's default if there is no `base`, or if it has other networks.
    """
    for name, section in check_fields(config).items():
        for key, field in section.items():
            before = field.default if base is None else base[name].get(key, field.default)
            yield f"{name}.{key}", field, config[name][key], before


def _fields(config: ConfigDict, parts: Parts, columns: int) -> Iterator[str]:
    title = "fields that differ from the base config"
    if parts.base is not None:
        title = "fields that differ from the given base"
    yield "all fields" if parts.all_fields else title
    for path, field, value, before in _declared(config, parts.base):
        changed = value != before
        if changed or parts.all_fields:
            remarks = [field.unit] * bool(field.unit) + [f"base {before!r}"] * changed
            text = f"{path} = {value!r}" + (f" ({', '.join(remarks)})" if remarks else "")
            yield _fill(text, columns, "  ", _INDENT)
            yield _fill(field.sentence, columns, _INDENT, _INDENT)


# ---- tables


@dataclasses.dataclass
class _Module:
    """A row of the table of modules."""

    module: str
    arrays: int
    parameters: int


def _module_table(role: str, params: Params) -> Iterator[str]:
    # Imported here, since the first page needs to be there at once.
    from clu import parameter_overview

    yield f"{role}, modules"
    yield parameter_overview.make_table(
        [
            _Module(name, len(jax.tree.leaves(module)), num_parameters(module))
            for name, module in params.items()
        ]
    )


def _memory_rows(memory: Memory) -> Mapping[str, int]:
    rows = {"state: parameters, EMA, Adam": memory.state}
    if memory.divided:
        rows["  of it divided by devices"] = memory.divided
    return rows | {
        "gradients of one network": memory.gradients,
        "activations, for each image": memory.activations,
    }
