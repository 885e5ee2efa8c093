"""Speed of the Inception features, from uint8 images on the host to numbers there, and of the FID.

    python -m benchmarks.features --config=configs/cifar10_ddgan.py --batch_size=32

Prints one JSON object; benchmarks/README.md explains its fields. Images have the size of the
config's; the parameters are random. "distance" is the Frechet distance of 2048 features from means
and covariances, once for 50,000 images, on the host.
"""

import sys

import jax
import numpy as np
from absl import flags

from benchmarks import command, measure
from ddgan_jax import distributed, metrics
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.config import ConfigDict
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import inception
from ddgan_jax.interop import inception as interop
from ddgan_jax.state import Params

WHAT = {"features": ("features",), "distance": ("distance",), "both": ("features", "distance")}
FLAGS = (
    Flag("what", "features|distance|both", "what is timed", "features"),
    Flag("batch_size", "N", "images in one call, over all devices", 32, "integer"),
    Flag("protocol", "tf1|pytorch_fid", "resize before the network", "tf1"),
    *command.BASELINE_FLAGS,
)
DIM, EXAMPLES, IMAGES = 2048, 6000, 50_000


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the fields of the report. Raises UserError if the flags make no sense."""
    if values.what not in WHAT:
        raise UserError(f"--what={values.what} is not one of {', '.join(WHAT)}")
    if values.protocol not in inception.PROTOCOLS:
        raise UserError(f"--protocol={values.protocol} is not one of tf1, pytorch_fid")
    if values.batch_size < 1 or values.batch_size % jax.local_device_count():
        raise UserError(
            f"--batch_size={values.batch_size} must be a positive multiple of the number of "
            f"devices, {jax.local_device_count()}"
        )
    baseline = command.baseline_of(values)
    makers = {
        "features": lambda: features_program(config, values.batch_size, values.protocol),
        "distance": distance_program,
    }
    programs = {name: makers[name]() for name in WHAT[values.what]}
    fields = {"batch_size": values.batch_size, "protocol": values.protocol}
    return fields | measure.measure(programs, values.repeats, baseline)


def features_program(config: ConfigDict, batch_size: int, protocol: str) -> measure.Program:
    """Return the program that takes one batch of images through the network."""
    size, channels = config.data.image_size, config.data.channels
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, size, size, channels), np.uint8)
    params = jax.device_put(random_params(), distributed.replicated(jax.local_devices()))
    return measure.Program(
        call=lambda: inception.features(params, images, protocol, batch_size=batch_size),
        images=batch_size,
    )


def random_params() -> Params:
    """Draw parameters of the network's shapes, so that activations keep their size."""
    random = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
        return (scale * random.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree.map(draw, interop.template())


def distance_program() -> measure.Program:
    """Return the program for the distance of two sets of features of full rank."""
    random = np.random.default_rng(0)
    # The variances of the features fall off, and yet none is zero.
    scale = np.exp(-np.arange(DIM) / 300)
    moments = []
    for offset in (0.0, 0.1):
        x = random.standard_normal((EXAMPLES, DIM)) * scale * (1 + offset) + offset
        moments += [x.mean(0), np.cov(x, rowvar=False)]
    return measure.Program(
        call=lambda: metrics.frechet_distance_from_statistics(*moments), images=IMAGES
    )


if __name__ == "__main__":
    sys.exit(command.main("features", __doc__, FLAGS, benchmark))
