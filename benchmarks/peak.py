"""What a device can do at best: large matrix products, and a large copy.

    python -m benchmarks.peak > results/peak.json

The other benchmarks report their share of these figures with --peak=results/peak.json. Products
run at JAX's default precision, as training does: on GPUs float32 means TensorFloat-32, on TPUs
products of bfloat16. Prints one JSON object.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import command, measure
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.errors import UserError

# Sides of the square matrices, of which the fastest counts, and MiB of the copy. On accelerators
# large enough that starting a call costs nothing.
_CPU_SIZES = ((256, 512, 1_024, 2_048), 256)
_ACCELERATOR_SIZES = ((4_096, 8_192, 16_384), 1_024)
DTYPES = ("float32", "bfloat16")

FLAGS = (
    Flag("size", "N", "side of the square matrices, instead of several", kind="integer"),
    Flag("copy_mib", "N", "MiB that the copy reads", kind="integer"),
    command.REPEATS_FLAG,
)


def benchmark(values: flags.FlagValues, _: Sequence[str]) -> measure.Report:
    """Return the fields of the report. Raises UserError for sizes that are not positive."""
    sizes, mib = _CPU_SIZES if jax.default_backend() == "cpu" else _ACCELERATOR_SIZES
    sizes, mib = (values.size,) if values.size else sizes, values.copy_mib or mib
    if min(*sizes, mib) < 1:
        raise UserError("--size and --copy_mib must be positive")
    products = {dtype: [_matmul(size, dtype, values.repeats) for size in sizes] for dtype in DTYPES}
    return {
        "repeats": values.repeats,
        "matmul": {
            dtype: max(found, key=lambda product: product["flops_per_second"])
            for dtype, found in products.items()
        },
        "copy": _copy(mib * 2**20, values.repeats),
    }


def _matmul(size: int, dtype: str, repeats: int) -> measure.Report:
    measure.progress(f"matrix product, {dtype}, {size}")
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    product = jax.jit(jnp.matmul)
    seconds = _seconds_per_call(lambda: product(a, b), repeats)
    return {
        "size": size,
        "seconds_per_call": seconds,
        # A product of n x n matrices takes n^3 multiplications and as many additions.
        "flops_per_second": measure.rounded(2 * size**3 / seconds["median"]),
    }


def _copy(size: int, repeats: int) -> measure.Report:
    measure.progress("copy")
    # Donated: fresh pages for every result would be measured instead.
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(size // 4, jnp.float32)

    def call() -> Any:
        nonlocal x
        x = copy(x)
        return x

    seconds = _seconds_per_call(call, repeats)
    return {
        # Each byte is read once and written once.
        "bytes": 2 * size,
        "seconds_per_call": seconds,
        "bytes_per_second": measure.rounded(2 * size / seconds["median"]),
    }


def _seconds_per_call(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    count = measure.warm_up(call)
    return measure.spread([measure.time_calls(call, count).wall / count for _ in range(repeats)])


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    sys.exit(command.run("peak", __doc__, FLAGS, benchmark))
