"""Count the FLOPs of a config's networks and train step, from shapes alone.

Nothing is computed or allocated, so that neither data nor an accelerator is needed.
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ddgan_jax import build, distributed, models, randomness
from ddgan_jax.config import diffused_shape, has_points
from ddgan_jax.models.flops import count_flops


def costs(config: ConfigDict) -> dict[str, float]:
    """Return the FLOPs per image of what a run does, by name: two for each multiply-add."""
    forward = network_flops(config)
    steps = config.sampling.num_steps or config.diffusion.num_timesteps
    counts: dict[str, float] = {
        "generator, forward": forward["generator"],
        "discriminator, forward": forward["discriminator"],
        f"sampling, {steps} steps": steps * forward["generator"],
        "train step": train_step_flops(config, r1=False),
    }
    if config.objective.r1_gamma:
        counts["train step with R1"] = train_step_flops(config, r1=True)
    return counts


def abstract_inputs(config: ConfigDict, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes of the networks' inputs: x (B, H, W, C), t (B,), z (B, ...), labels (B,)."""
    latent = models.latent_shape(config)
    return {
        "x": jax.ShapeDtypeStruct((batch_size, *diffused_shape(config)), jnp.float32),
        "t": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        "z": jax.ShapeDtypeStruct((batch_size, *latent), jnp.float32),
        "labels": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }


def abstract_batch(config: ConfigDict, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a training batch."""
    dtype = jnp.float32 if has_points(config) else jnp.uint8
    return {
        "image": jax.ShapeDtypeStruct((batch_size, *build.image_shape(config)), dtype),
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


@randomness.reproducible()
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
