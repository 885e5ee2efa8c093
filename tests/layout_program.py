"""One process of a small job whose every result can be compared with another layout's.

    python -m tests.layout_program OUT.npz CONFIG [FIELD=VALUE ...] [-- COORDINATOR PROCESSES ID]

Writes the gradients of both losses at step 0 (R1 included if the config has it), the parameters
after NUM_STEPS steps, and images of 8 seeds, each drawn by process 0.
"""

import functools
import sys

import jax
import numpy as np

from ddgan_jax import build, data, distributed, randomness, train_step
from ddgan_jax.cli.arguments import parse_config
from ddgan_jax.config.checks import validate
from ddgan_jax.inference import drawing
from ddgan_jax.randomness import Purpose
from ddgan_jax.training import hosts

NUM_STEPS = 20
SEEDS = range(8)


def gradient_step(config):
    """As the train step, but what it returns in place of the state are both gradients."""
    objective = build.objective(config)
    r1 = build.r1_is_due(config, 0)

    def step(state, batch, key):
        x_0, labels = train_step.to_float_images(batch["image"]), batch["label"]

        def draw(purpose):
            keys = randomness.example_keys(key, state.step, purpose, batch["index"])
            return objective.draw(keys, x_0.shape[1:])

        d, g = state.discriminator.params, state.generator.params
        gradients = {
            "discriminator": jax.grad(objective.discriminator_loss, has_aux=True)(
                d, g, x_0, labels, draw(Purpose.DISCRIMINATOR_STEP), r1
            )[0],
            "generator": jax.grad(objective.generator_loss, has_aux=True)(
                g, d, x_0, labels, draw(Purpose.GENERATOR_STEP)
            )[0],
        }
        return jax.lax.pmean(gradients, distributed.AXIS), {}

    return step


def main(out, config):
    devices = jax.devices()
    validate(config, len(devices))
    rows = distributed.local_rows(config.train.batch_size, devices)
    batches = data.batches(
        data.open_dataset(config),
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        start_step=0,
        positions=rows,
    )
    key = randomness.run_key(config.train.seed)
    create_state = functools.partial(build.initial_state, config, key)

    def place(batch):
        return distributed.place_batch(batch, config.train.mapping, devices)

    divided = config.train.shard_optimizer
    layout = distributed.abstract_state(create_state, devices, sharded=divided)

    def mapped(step):
        return distributed.map_step(
            step, config.train.mapping, devices, layout if divided else None
        )

    batch = place(next(batches))
    replicated = distributed.create_replicated(create_state, devices)
    step = distributed.map_step(gradient_step(config), config.train.mapping, devices)
    gradients, _ = step(replicated, batch, key)

    state = distributed.create_state(create_state, layout)
    programs = {r1: mapped(build.step(config, r1=r1)) for r1 in (True, False)}
    for step in range(NUM_STEPS):
        state, _ = programs[build.r1_is_due(config, step)](state, batch, key)
        batch = place(next(batches))
    batches.close()
    state = distributed.to_host(state)

    if distributed.is_main_process():
        draw = drawing.make_drawer(
            build.sampler(config), distributed.local(devices), config.sampling.chunk_size
        )
        # The same initial parameters in every layout: images must not differ in a single bit.
        initial = distributed.create_replicated(create_state, distributed.local(devices))
        images = drawing.draw_all(
            draw, initial.generator.params, drawing.each_class(config.data.num_classes, SEEDS)
        )
        trees = {"gradient": gradients, "params": state}
        arrays = {
            f"{kind}{jax.tree_util.keystr(path)}": np.asarray(leaf)
            for kind, tree in trees.items()
            for path, leaf in jax.tree.flatten_with_path(tree)[0]
        }
        np.savez(out, images=images, **arrays)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--" in arguments:
        split = arguments.index("--")
        address, count, process = arguments[split + 1 :]
        # At the end the others wait for the first one's images.
        hosts.join(address, int(count), int(process), peer_timeout=1200)
        arguments = arguments[:split]
    file, config_file, *changes = arguments
    main(file, parse_config(config_file, [f"--config.{change}" for change in changes]))
