"""What JAX's compiler is told before it starts: where to keep programs, how to write for a CPU.

By environment variables, which JAX reads as it is imported or computes for the first time, or by
its settings where it is imported already. What the user has set stays.
"""

import importlib
import importlib.util
import os
import sys

from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files.paths import cache_folder, is_bucket
from ddgan_jax.files.run_folder import RunFolder

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


def import_jax() -> None:
    """Import JAX. Raises UserError if it cannot be, as with the variable JAX_ENABLE_X64=maybe."""
    try:
        importlib.import_module("jax")
    except (ImportError, ValueError) as error:
        raise UserError(
            f"JAX does not start: {reason(error)}; mend the variables JAX_... or install it again"
        ) from error


def keep_programs(workdir: str = "") -> None:
    """Let JAX keep compiled programs; call before JAX compiles the first one.

    They lie in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/ddgan_jax/jax, and are found
    again by the next run with the same config and devices: it starts in seconds. With a run folder
    in a bucket they lie in WORKDIR/jax_cache: only the first host of a pod writes them, and all may
    be new after a preemption. Everything is kept however fast it compiled. Without a home folder
    nothing is kept, nor where it cannot be made: that is one line, instead of JAX's two for each
    program. JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    """
    if is_bucket(workdir):
        folder = os.fspath(RunFolder.at(workdir).compiled_programs)
    elif cache := cache_folder():
        folder = os.fspath(cache / "jax")
    else:
        return
    if not is_bucket(workdir) and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            where = f"{shown(folder, 300)}: {reason(error)}"
            print(f"compiled programs are not kept in {where}", file=sys.stderr)
            return
    settings = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        if name.upper() in os.environ:
            continue
        os.environ[name.upper()] = str(value)
        if "jax" in sys.modules:  # a config file may have imported it
            sys.modules["jax"].config.update(name, value)


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
