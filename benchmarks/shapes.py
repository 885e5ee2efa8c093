"""Trace every shipped config for its parameters, FLOPs, bytes reduced and activations.

    python -m benchmarks.shapes --out=docs/results/shapes.json

Nothing is compiled and no data is read, but the largest networks take a minute to trace. Configs
that the file holds already are traced again only with --again. `benchmarks.scaling` reads it.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend import core

from benchmarks import command
from benchmarks.measure import progress
from ddgan_jax import build, distributed
from ddgan_jax.cli.arguments import Flag, parse_flags
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.files import load_config, shipped_configs
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.inspection import costs, memory
from ddgan_jax.state import num_parameters

CONFIGS = Path(__file__).parents[1] / "configs"
FLAGS = (
    Flag("out", "FILE", "JSON file to write or to complete", "docs/results/shapes.json"),
    Flag("again", "", "trace also what the file holds already", False, "switch"),
)

Facts = dict[str, Any]


def facts_of(config: ConfigDict) -> Facts:
    """Return the facts about a config for docs/scaling.md; see `activations` for memory."""
    state = jax.eval_shape(lambda: build.initial_state(config, jax.random.key(0)))
    flops = {"without_r1": costs.train_step_flops(config, r1=False)}
    if config.objective.r1_gamma:
        flops["with_r1"] = costs.train_step_flops(config, r1=True)
        share = 1 / config.objective.r1_interval
        mean = share * flops["with_r1"] + (1 - share) * flops["without_r1"]
    else:
        mean = flops["without_r1"]
    networks = {"generator": state.generator, "discriminator": state.discriminator}
    return {
        "batch_size": config.train.batch_size,
        "parameters": {n: num_parameters(s.params) for n, s in networks.items()},
        "parameter_bytes": {n: size_of(s.params) for n, s in networks.items()},
        "state_bytes": size_of(state),
        "reduced_bytes_per_step": reduced_bytes(config),
        "flops_per_image_and_step": flops | {"mean": mean},
        "activation_bytes_per_image": activations(config),
    }


def reduced_bytes(config: ConfigDict) -> int:
    """Return the bytes that all devices average in one step, read off the traced program."""
    step = build.step(config, r1=False)
    state = jax.eval_shape(lambda: build.initial_state(config, jax.random.key(0)))
    # Four images a part are the fewest that form a group of the minibatch standard deviation.
    batch = costs.abstract_batch(config, 4 * config.train.microbatches)
    # A named axis is enough to trace the reductions: no device of it is needed.
    traced = jax.make_jaxpr(step, axis_env=[(distributed.AXIS, 2)])(state, batch, jax.random.key(0))
    return sum(
        sum(size_of(variable.aval) for variable in equation.invars)
        for equation in _equations(traced.jaxpr)
        if equation.primitive.name.startswith("psum")
    )


def _equations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        # Loops and calls hold programs of their own among their parameters.
        for value in equation.params.values():
            inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
            if isinstance(inner, core.Jaxpr):
                yield from _equations(inner)


def activations(config: ConfigDict) -> dict[str, int]:
    """Return `memory.activation_bytes` by the resolutions that are rematerialised.

    They are named as in "32,16"; "" for none, and for networks that cannot.
    """
    return {name: _activation_bytes(variant) for name, variant in _variants(config)}


def _variants(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    if "remat_resolutions" not in config.generator:
        yield "", config
        return
    # A level's blocks may run at its own resolution or at half of it.
    levels = range(len(config.generator.channel_multipliers) + 1)
    everywhere = tuple(config.data.image_size >> level for level in levels)
    shipped = tuple(config.generator.remat_resolutions)
    for sizes in dict.fromkeys(((), shipped, everywhere)):
        variant = config.copy_and_resolve_references()
        variant.generator.remat_resolutions = sizes
        variant.discriminator.remat_resolutions = sizes
        yield ",".join(map(str, sizes)), variant


def _activation_bytes(config: ConfigDict) -> int:
    state = jax.eval_shape(lambda: build.initial_state(config, jax.random.key(0)))
    return memory.activation_bytes(config, state)


def size_of(tree: Any) -> int:
    """Return the bytes of a tree of arrays or shapes, without random keys."""
    return sum(
        math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


def main() -> int:
    """Trace the missing configs one by one, and write the file after each."""
    values, _ = parse_flags("python -m benchmarks.shapes", FLAGS, sys.argv[1:])
    out = Path(values.out)
    found = json.loads(out.read_text()) if out.exists() and not values.again else {}
    for name in shipped_configs():
        if name not in found:
            progress(name)
            found[name] = facts_of(load_config(str(CONFIGS / f"{name}.py")))
            text = json.dumps(dict(sorted(found.items())), indent=1)
            write_atomically(out, f"{text}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(command.exit_code("shapes", main))
