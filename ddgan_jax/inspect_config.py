"""Explain a config without data or accelerator, for `ddgan show`.

Parameters, FLOPs and memory follow from shapes alone, so that nothing is computed or allocated.
"""

import dataclasses
import functools
import math
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from ddgan_jax import build, distributed, models, randomness
from ddgan_jax.config import has_points
from ddgan_jax.config.checks import validate
from ddgan_jax.config.files import to_json
from ddgan_jax.config.model_checks import check_fields
from ddgan_jax.models.flops import count_flops
from ddgan_jax.state import Params, PyTree, TrainState, may_be_sharded, num_parameters


@randomness.reproducible()
def show(config: ConfigDict) -> str:
    """Return the resolved config, parameters per module, FLOPs per image and memory, as text.

    The fields that differ from their defaults are explained. Raises UserError if the config cannot
    be trained.
    """
    validate(config)
    generator, discriminator = models.abstract_params(config)
    return "\n".join(
        [
            to_json(config),
            _changed_fields(config),
            _parameter_table("generator", generator),
            _parameter_table("discriminator", discriminator),
            _flops_table(config),
            _memory_table(config),
        ]
    )


def abstract_inputs(config: ConfigDict, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes of the networks' inputs: x (B, H, W, C), t (B,), z (B, ...), labels (B,)."""
    size = config.data.image_size
    latent = models.latent_shape(config)
    return {
        "x": jax.ShapeDtypeStruct((batch_size, size, size, config.data.channels), jnp.float32),
        "t": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "z": jax.ShapeDtypeStruct((batch_size, *latent), jnp.float32),
        "labels": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }


def abstract_batch(config: ConfigDict, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a training batch."""
    size = config.data.image_size
    dtype = jnp.float32 if has_points(config) else jnp.uint8
    return {
        "image": jax.ShapeDtypeStruct((batch_size, size, size, config.data.channels), dtype),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }


def network_flops(config: ConfigDict) -> dict[str, int]:
    """Return the FLOPs per image of one forward pass of each network."""
    # One image is enough, since a forward pass does the same work for each image.
    inputs = abstract_inputs(config, 1)
    x, t, z, labels = (inputs[name] for name in ("x", "t", "z", "labels"))
    # A discriminator of pairs also takes the noisier image, which its first layer pays for.
    x_tp1 = x if config.objective.joint else None
    generator, discriminator = models.abstract_params(config)
    return {
        "generator": count_flops(models.generator(config), generator, x, t, z, labels),
        "discriminator": count_flops(
            models.discriminator(config), discriminator, x, t, x_tp1, labels
        ),
    }


def train_step_flops(config: ConfigDict, *, r1: bool) -> float:
    """Return the FLOPs per image of one train step on one device."""
    # The images of one minibatch standard deviation.
    batch_size = 4
    # One device takes part: the axis that the step averages gradients over has one entry.
    step = jax.vmap(
        build.step(config, r1=r1),
        in_axes=(None, 0, None),
        out_axes=None,
        axis_name=distributed.AXIS,
    )
    key = jax.eval_shape(lambda: randomness.run_key(0))
    state = jax.eval_shape(functools.partial(build.initial_state, config), key)
    batch = {
        name: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype)
        for name, leaf in abstract_batch(config, batch_size).items()
    }
    return count_flops(step, state, batch, key) / batch_size


def _changed_fields(config: ConfigDict) -> str:
    lines = ["fields that differ from their defaults"]
    for name, section in check_fields(config).items():
        for key, field in section.items():
            value = config[name][key]
            if value != field.default:
                unit = f" {field.unit}" if field.unit else ""
                lines.append(f"  {name}.{key} = {value!r}{unit} (default {field.default!r})")
                indent = " " * 6
                lines += textwrap.wrap(
                    field.sentence, 100, initial_indent=indent, subsequent_indent=indent
                )
    return "\n".join(lines) + "\n"


@dataclasses.dataclass
class _Module:
    """A row of the table of parameters."""

    module: str
    arrays: int
    parameters: int


def _parameter_table(title: str, params: Params) -> str:
    rows = [
        _Module(name, len(jax.tree.leaves(module)), num_parameters(module))
        for name, module in params.items()
    ]
    table = parameter_overview.make_table(rows)
    return f"{title}: {num_parameters(params):,} parameters\n{table}\n"


def _flops_table(config: ConfigDict) -> str:
    forward = network_flops(config)
    steps = config.sampling.num_steps or config.diffusion.num_timesteps
    rows = {
        "generator, forward": forward["generator"],
        "discriminator, forward": forward["discriminator"],
        f"sampling, {steps} steps": steps * forward["generator"],
        "train step": train_step_flops(config, r1=False),
    }
    if config.objective.r1_gamma:
        rows["train step with R1"] = train_step_flops(config, r1=True)
    lines = ["GFLOP per image (matrix products and convolutions, 2 per multiply-add)"]
    return "\n".join(lines + [f"  {k:<28}{v / 1e9:>14,.2f}" for k, v in rows.items()]) + "\n"


def _memory_table(config: ConfigDict) -> str:
    state = jax.eval_shape(lambda: build.initial_state(config, randomness.run_key(0)))
    rows = {
        "state: parameters, EMA, Adam": _bytes(state),
        **_divided(config, state),
        # The updates follow each other, so that the gradients of both never exist at the same time.
        "gradients of one network": max(
            _bytes(state.generator.params), _bytes(state.discriminator.params)
        ),
        "activations, for each image": activation_bytes(config, state),
    }
    lines = ["MiB per device, estimated before compilation"]
    return "\n".join(lines + [f"  {k:<28}{v / 2**20:>14,.1f}" for k, v in rows.items()])


def _divided(config: ConfigDict, state: TrainState) -> dict[str, int]:
    if not config.train.shard_optimizer:
        return {}
    # The leaves of both trees come in the same order.
    marked = jax.tree.leaves(may_be_sharded(state))
    pairs = zip(jax.tree.leaves(state), marked, strict=True)
    return {"  of it divided by devices": sum(_bytes(leaf) for leaf, may in pairs if may)}


def activation_bytes(config: ConfigDict, state: TrainState) -> int:
    """Return the bytes that the larger backward pass (with R1 if any) keeps for one image."""
    # The difference of two batches leaves out what a backward pass keeps once, whatever the batch,
    # such as the parameters in the compute dtype.
    # Both are whole groups of the minibatch standard deviation.
    few, more = 4, 8
    kept = [_kept_bytes(config, state, batch_size) for batch_size in (few, more)]
    return max(b - a for a, b in zip(*kept, strict=True)) // (more - few)


def _kept_bytes(config: ConfigDict, state: TrainState, batch_size: int) -> tuple[int, int]:
    """Return what the generator's and the discriminator's backward pass keep, for a batch."""
    objective = build.objective(config)
    inputs = abstract_inputs(config, batch_size)
    # Only shapes are needed, and not a single number is drawn.
    keys = jax.eval_shape(lambda: jax.random.split(randomness.run_key(0), batch_size))
    draws = jax.eval_shape(lambda keys: objective.draw(keys, inputs["x"].shape[1:]), keys)
    examples = inputs["x"], inputs["labels"], draws
    generator, discriminator = state.generator.params, state.discriminator.params
    r1 = config.objective.r1_gamma > 0

    def residuals(loss: Callable[..., Any], *arguments: Any) -> int:
        def backward(params: Params, *others: Any) -> Any:
            return jax.vjp(lambda p: loss(p, *others), params, has_aux=True)[1]

        # The backward function is a pytree: its leaves are the arrays that the forward pass keeps.
        return _bytes(jax.eval_shape(backward, *arguments))

    return (
        residuals(objective.generator_loss, generator, discriminator, *examples),
        residuals(
            lambda *arguments: objective.discriminator_loss(*arguments, r1=r1),
            discriminator,
            generator,
            *examples,
        ),
    )


def _bytes(tree: PyTree) -> int:
    return sum(
        math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
        # The size of a random key depends on the generator, and is nothing beside the rest.
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
