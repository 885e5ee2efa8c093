"""Speed of the sampler, with new parameters, from seeds to float images on the devices.

    python -m benchmarks.sampler --config=configs/cifar10_ddgan.py --num=4

Prints one JSON object; benchmarks/README.md explains its fields.
"""

import sys

import jax
from absl import flags

from benchmarks import command, measure
from ddgan_jax import build, distributed, models, randomness
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import UserError
from ddgan_jax.inference import drawing
from ddgan_jax.inspection import costs

FLAGS = (
    Flag(
        "num",
        "N",
        "images drawn at once; without it sampling.chunk_size for each device",
        kind="integer",
    ),
    *command.BASELINE_FLAGS,
    command.PEAK_FLAG,
)


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the fields of the report. Raises UserError if the config or --num does not work."""
    baseline = command.baseline_of(values)
    validate(config)
    devices = jax.devices()
    images = config.sampling.chunk_size * len(devices) if values.num is None else values.num
    if images < 1 or images % len(devices):
        raise UserError(
            f"--num={images} must be a positive multiple of the number of devices, {len(devices)}"
        )
    fields = {
        "batch_size": images,
        "compute_dtype": config.train.compute_dtype,
        "nfe": config.diffusion.num_timesteps,
    }
    programs = {"sample": make_program(config, images)}
    peak = measure.read_peak(values.peak, config.train.compute_dtype)
    return fields | measure.measure(programs, values.repeats, baseline, peak)


def make_program(config: ConfigDict, images: int) -> measure.Program:
    """Compile the sampler of `images` images over all devices."""
    devices = jax.devices()
    key = randomness.run_key(config.train.seed)
    # Speed does not depend on the values of the parameters, so that no checkpoint is needed.
    params = distributed.create_replicated(lambda: models.init_params(config, key)[0], devices)
    request = tuple(drawing.each_class(config.data.num_classes, range(images)))
    inputs = jax.device_put(request, distributed.split(devices))
    measure.progress("sample: compiling")
    sampler = build.sampler(config)
    # Only the last step's images are returned: the trajectory would be copied for nothing.
    mapped = distributed.map_examples(
        lambda params, inputs: sampler(params, *inputs).x_t[-1], devices
    )
    compiled = measure.compile_program(mapped, params, inputs)
    forward = costs.network_flops(config)["generator"]
    return measure.Program(
        call=lambda: compiled.call(params, inputs),
        images=images,
        flops_per_image={
            "counted": forward * config.diffusion.num_timesteps,
            # XLA counts the operations of one device.
            "xla": compiled.flops and compiled.flops * len(devices) / images,
        },
        bytes_per_image=compiled.bytes and compiled.bytes * len(devices) / images,
        facts=compiled.facts,
        executable=compiled.call,
    )


if __name__ == "__main__":
    sys.exit(command.main("sampler", __doc__, FLAGS, benchmark))
