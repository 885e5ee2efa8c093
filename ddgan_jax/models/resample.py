"""Resample images up and down with FIR filters, as shifted sums.

"Insert up - 1 zeros after every sample, pad, filter, keep every down-th sample" is the classical
resampling operation. Written literally it is a depthwise convolution, most of whose work is
multiplications by the inserted zeros and whose gradient is slow on every backend. Sorting the
outputs by phase removes both: output j = P q + r (P = up / gcd(up, down)) reads the input at

    q (down / gcd) + (r down + k - pad) / up        for the taps k where that is an integer,

so that each phase is a sum of a few shifted (strided) copies of the image, which compilers fuse.
With taps (1, 3, 3, 1) / 8 and factor 2, per axis and with zeros beyond the border:

    up    out[2i] = x[i-1]/4 + 3 x[i]/4,    out[2i+1] = 3 x[i]/4 + x[i+1]/4
    down  out[i]  = (x[2i-1] + 3 x[2i] + 3 x[2i+1] + x[2i+2]) / 8

Images are (B, H, W, C). The zero border darkens constants at the edge, as in the published
networks.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ddgan_jax.state import AnyArray

Taps = Sequence[float]


def upfirdn(
    x: AnyArray, taps: Taps, axis: int, *, up: int = 1, down: int = 1, pad: tuple[int, int]
) -> jax.Array:
    """Insert zeros by `up`, pad, convolve with `taps`, and keep every `down`-th sample.

    x: any shape and float dtype, kept. pad: zeros before and after along `axis`; negative crops.
    Length of the result along `axis`: (n up + pad[0] + pad[1] - len(taps)) // down + 1.
    """
    n = x.shape[axis]
    length = (n * up + sum(pad) - len(taps)) // down + 1
    num_phases = up // math.gcd(up, down)
    stride = down // math.gcd(up, down)
    # Outputs of each phase, of which the last one may be too many.
    count = -(-length // num_phases)

    # A true convolution runs through the taps backwards.
    # (phase, tap weight, offset of the phase's first input sample)
    terms = [
        (phase, weight, (phase * down + k - pad[0]) // up)
        for phase in range(num_phases)
        for k, weight in enumerate(reversed(taps))
        if (phase * down + k - pad[0]) % up == 0
    ]
    first = min(offset for _, _, offset in terms)
    last = max(offset for _, _, offset in terms) + (count - 1) * stride
    borders = [(0, 0, 0)] * x.ndim
    # Negative widths crop.
    borders[axis] = (-first, last + 1 - n, 0)
    padded = lax.pad(x, jnp.zeros((), x.dtype), borders)

    phases = [jnp.zeros((), x.dtype)] * num_phases
    for phase, weight, offset in terms:
        start = offset - first
        stop = start + (count - 1) * stride + 1
        shifted = lax.slice_in_dim(padded, start, stop, stride, axis)
        phases[phase] = phases[phase] + weight * shifted
    if num_phases == 1:
        return phases[0]
    shape = x.shape[:axis] + (count * num_phases,) + x.shape[axis + 1 :]
    # Output j is number j // num_phases of its phase.
    interleaved = jnp.stack(phases, axis + 1).reshape(shape)
    return lax.slice_in_dim(interleaved, 0, length, 1, axis)


def _both_axes(x: AnyArray, taps: Taps, **kwargs) -> jax.Array:
    return upfirdn(upfirdn(x, taps, 1, **kwargs), taps, 2, **kwargs)


def _normalised(taps: Taps, gain: float = 1.0) -> list[float]:
    return [gain * tap / sum(taps) for tap in taps]


def _split(total: int, extra: int = 0) -> tuple[int, int]:
    return (total + 1) // 2 + extra, total // 2


def upsample_fir(x: AnyArray, taps: Taps, factor: int = 2) -> jax.Array:
    """Enlarge images, keeping their brightness: (B, H, W, C) -> (B, factor H, factor W, C)."""
    pad = _split(len(taps) - factor, extra=factor - 1)
    # The inserted zeros would take brightness away, which the gain gives back.
    return _both_axes(x, _normalised(taps, factor), up=factor, pad=pad)


def downsample_fir(x: AnyArray, taps: Taps, factor: int = 2) -> jax.Array:
    """Shrink images: (B, H, W, C) -> (B, H / factor, W / factor, C)."""
    return _both_axes(x, _normalised(taps), down=factor, pad=_split(len(taps) - factor))


def blur_before_strided_conv(x: AnyArray, taps: Taps) -> jax.Array:
    """Filter before a 3x3 convolution of stride 2: (B, H, W, C) -> (B, H+1, W+1, C).

    Filter first, then the unpadded strided convolution: at the border this differs from
    convolving first.
    """
    return _both_axes(x, _normalised(taps), pad=_split(len(taps)))


def blur_after_transposed_conv(x: AnyArray, taps: Taps) -> jax.Array:
    """Filter after a 3x3 convolution that doubled the size: (B, 2H+1, ..) -> (B, 2H, ..)."""
    total = len(taps) - 4
    pad = ((total + 1) // 2 + 1, total // 2 + 1)
    return _both_axes(x, _normalised(taps, 2), pad=pad)


def upsample_nearest(x: AnyArray) -> jax.Array:
    """Repeat every pixel as 2 x 2: (B, H, W, C) -> (B, 2H, 2W, C)."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def downsample_mean(x: AnyArray) -> jax.Array:
    """Return means of 2 x 2 pixels: (B, H, W, C) -> (B, H / 2, W / 2, C)."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
