"""What JAX's compiler is told before it starts: where to keep programs, how to write for a CPU.

All by environment variables, which JAX reads as it is imported or computes for the first time:
nothing here imports it, and what the user has set stays.
"""

import importlib.util
import os
from pathlib import Path

from ddgan_jax.files.paths import is_bucket

# Train step of cifar10_ddgan.py, 4 images, two cores with AVX-512: together 0.87 of the time. The
# newer convolutions that the second leaves out need 1.6 times as long for weight gradients.
CPU_FLAGS = {
    "--xla_cpu_prefer_vector_width": "512",
    "--xla_cpu_experimental_ynn_fusion_type": "-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION",
}


def set_up(workdir: str = "") -> None:
    """`keep_programs` and `use_cpu_flags`; what every command that computes calls first.

    workdir: of the run, if there is one.
    """
    keep_programs(workdir)
    use_cpu_flags()


def keep_programs(workdir: str = "") -> None:
    """Let JAX keep compiled programs; call before jax is imported.

    They lie in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/ddgan_jax/jax, and are found
    again by the next run with the same config and devices: it starts in seconds. With a run folder
    in a bucket they lie in WORKDIR/jax_cache: only the first host of a pod writes them, and all may
    be new after a preemption. Everything is kept however fast it compiled.
    JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = f"{workdir}/jax_cache" if is_bucket(workdir) else str(home / "ddgan_jax" / "jax")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def use_cpu_flags() -> None:
    """Add CPU_FLAGS to $XLA_FLAGS, except those named there; call before JAX's first computation.

    GPUs ignore them. Where libtpu is installed nothing is added: it reads the same variable, and
    ends the process at a flag that its own version does not know.
    """
    if importlib.util.find_spec("libtpu"):
        return
    given = os.environ.get("XLA_FLAGS", "").split()
    names = {flag.partition("=")[0] for flag in given}
    added = [f"{name}={value}" for name, value in CPU_FLAGS.items() if name not in names]
    os.environ["XLA_FLAGS"] = " ".join([*given, *added])
