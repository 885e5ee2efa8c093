"""List what the makers of accelerators publish about them, for docs/scaling.md."""

from typing import NamedTuple

_GIGA = 1e9
_TERA = 1e12


class Chip(NamedTuple):
    """An accelerator with its links; rates are those of one chip.

    Links count in one direction: published bidirectional figures are halved.
    """

    name: str
    flops_per_second: float  # peak of dense bfloat16 products
    memory_bytes: float
    link_bytes_per_second: float  # to the chips of its group, over all its links
    group: int  # chips that those links join
    network_bytes_per_second: float | None  # to other groups; None: nothing published, or no need
    sources: tuple[str, ...]


CHIPS = (
    Chip(
        name="TPU v4",
        flops_per_second=275 * _TERA,
        memory_bytes=32 * 2**30,
        link_bytes_per_second=6 * 50 * _GIGA,
        group=4_096,
        network_bytes_per_second=None,
        sources=(
            "https://cloud.google.com/tpu/docs/v4",
            "https://arxiv.org/abs/2304.01433 (six links of 50 GB/s)",
        ),
    ),
    Chip(
        name="TPU v5e",
        flops_per_second=197 * _TERA,
        memory_bytes=16 * _GIGA,
        link_bytes_per_second=400 * _GIGA / 2,
        group=256,
        network_bytes_per_second=6.4 * _TERA / 8 / 256,
        sources=("https://cloud.google.com/tpu/docs/v5e (network: 6.4 Tb/s for a pod)",),
    ),
    Chip(
        name="TPU v5p",
        flops_per_second=459 * _TERA,
        memory_bytes=95 * 2**30,
        link_bytes_per_second=1_200 * _GIGA / 2,
        group=8_960,
        network_bytes_per_second=50 * _GIGA / 8,
        sources=("https://cloud.google.com/tpu/docs/v5p",),
    ),
    Chip(
        name="TPU v6e",
        flops_per_second=918 * _TERA,
        memory_bytes=32 * _GIGA,
        link_bytes_per_second=800 * _GIGA / 2,
        group=256,
        network_bytes_per_second=None,
        sources=("https://cloud.google.com/tpu/docs/v6e",),
    ),
    Chip(
        name="H100 SXM",
        flops_per_second=989.4 * _TERA,
        memory_bytes=80 * _GIGA,
        link_bytes_per_second=900 * _GIGA / 2,
        group=8,
        network_bytes_per_second=400 * _GIGA / 8,
        sources=(
            "https://www.nvidia.com/en-us/data-center/h100/ (NVLink 4: 900 GB/s)",
            "https://docs.nvidia.com/dgx/dgxh100-user-guide/ (400 Gb/s ConnectX-7 for each GPU)",
        ),
    ),
)
