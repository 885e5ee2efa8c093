"""Extract Inception features of images, by the two protocols that published numbers follow.

    tf1          TensorFlow's legacy bilinear resize to 299 x 299, (x - 128) / 128.
                 torch-fidelity, ADM, StyleGAN, EDM, and the original code.
    pytorch_fid  bilinear resize by pixel centres, without antialiasing, x / 127.5 - 1.
                 pytorch-fid and, with it, the numbers of the DDGAN paper.

Their features differ by about 1 % at 32 x 32 pixels; only numbers of one protocol compare.

Bilinear interpolation along an axis is linear in the pixels: row i of a matrix holds the weights of
output i, so that both resizes are x -> M_h x M_w^T, exact products without gathers.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddgan_jax import distributed
from ddgan_jax.distributed import Devices
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation.batching import call_in_batches
from ddgan_jax.models.inception import INPUT_SIZE, PRECISION, InceptionV3
from ddgan_jax.state import Params

# Images in one call of the compiled network, over all devices.
BATCH_SIZE = 32


class Features(NamedTuple):
    """Features of n images, float32 (float64 under jax_enable_x64)."""

    # For FID, KID, precision and recall.
    pool3: Float[np.ndarray, "n 2048"]
    # Without bias, for the Inception Score.
    logits: Float[np.ndarray, "n 1008"]


def _legacy_positions(size: int) -> np.ndarray:
    # TensorFlow's scale is a float32; that rounding is seen, those after it are not.
    return np.arange(INPUT_SIZE) * float(np.float32(size / INPUT_SIZE))


def _centre_positions(size: int) -> np.ndarray:
    # Positions outside of the first pixel's centre are moved onto it, as PyTorch does.
    return np.maximum((np.arange(INPUT_SIZE) + 0.5) * (size / INPUT_SIZE) - 0.5, 0)


class Protocol(NamedTuple):
    """The way from uint8 images to the network's input."""

    # Axis size -> (299,): the positions at which the outputs are read.
    positions: Callable[[int], np.ndarray]
    offset: float
    scale: float  # input = (x - offset) / scale


PROTOCOLS = {
    "tf1": Protocol(_legacy_positions, 128.0, 128.0),
    "pytorch_fid": Protocol(_centre_positions, 127.5, 127.5),
}


def resize_matrix(protocol: str, size: int) -> Float[np.ndarray, "299 size"]:
    """Return the weights of a bilinear resize of an axis, float64: two in a row, which add to 1."""
    positions = PROTOCOLS[protocol].positions(size)
    rows = np.arange(INPUT_SIZE)
    low = np.floor(positions).astype(int)
    weight = positions - low
    matrix = np.zeros((INPUT_SIZE, size))
    matrix[rows, low] = 1 - weight
    # At the border both weights fall on the last pixel and must add up.
    matrix[rows, np.minimum(low + 1, size - 1)] += weight
    return matrix


def resize(images: Array, protocol: str) -> Float[Array, "b 299 299 c"]:
    """Resize images (b, h, w, c) of any dtype in [0, 255]; the range of the values stays."""
    # With the default precision TPUs would round pixels to bfloat16.
    x = jnp.asarray(images, jnp.result_type(float))
    rows, columns = (jnp.asarray(resize_matrix(protocol, n), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ah,bhwc,ew->baec", rows, x, columns, precision=PRECISION)


def preprocess(images: Array, protocol: str) -> Float[Array, "b 299 299 3"]:
    """Return the network's input from images (b, h, w, c) in [0, 255]; gray ones become RGB."""
    _, offset, scale = PROTOCOLS[protocol]
    x = (resize(images, protocol) - offset) / scale
    return jnp.broadcast_to(x, (*x.shape[:-1], 3))


# Resizing and the network are two programs, so that another image size or protocol does not compile
# the network again, which takes a minute on a CPU.
@functools.cache
def _preprocess_on(devices: Devices, protocol: str) -> Callable[..., jax.Array]:
    return distributed.map_examples(lambda _, images: preprocess(images, protocol), devices)


@functools.cache
def _network_on(devices: Devices) -> Callable[..., tuple[jax.Array, jax.Array]]:
    return distributed.map_examples(lambda p, x: InceptionV3().apply({"params": p}, x), devices)


def features(
    params: Params,
    images: np.ndarray,
    protocol: str = "tf1",
    *,
    batch_size: int = BATCH_SIZE,
    devices: Devices = (),
) -> Features:
    """Return the Inception features of uint8 images (n, h, w, c), c = 1 (gray) or 3 (RGB), n >= 1.

    The last batch is filled up with copies, whose features are thrown away.

    Args:
      params: As `interop.inception.load` returns them, best placed on the devices already.
      images: uint8, of any size.
      protocol: A key of PROTOCOLS.
      batch_size: Images in one call of the compiled network, over all devices; it is rounded up to
        a multiple of their number.
      devices: By default all devices of this process.

    Raises UserError for an unknown protocol and for images of another type or shape.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"there is no protocol {protocol!r}, there are {', '.join(PROTOCOLS)}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            "features are those of uint8 images (N, H, W, 1 or 3), not of "
            f"{images.dtype} {images.shape}"
        )
    devices = tuple(devices or distributed.local_devices())
    params = jax.device_put(params, distributed.replicated(devices))
    prepare, network = _preprocess_on(devices, protocol), _network_on(devices)
    # Every device gets the same number of images.
    size = -(-batch_size // len(devices)) * len(devices)
    return Features(
        *call_in_batches(lambda batch: network(params, prepare((), batch)), images, size)
    )
