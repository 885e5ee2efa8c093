"""Set JAX's compiler up: where it keeps programs, and its options for the train step on CPUs.

What the user has set stays. Nothing here writes XLA_FLAGS: an unknown flag there ends any JAX
program at once, and the flags known change with every version. An option of one program can be
tried first.
"""

import contextlib
import functools
import importlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping

from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files.paths import cache_folder, is_bucket

# Wide vectors, and every use of the YNNPACK library but for convolutions. Together they take 0.87
# of the time of cifar10_ddgan's train step, 4 images, on an Intel CPU with AVX-512, where YNNPACK
# needs 1.6 times as long for weight gradients. On an AMD CPU with AVX-512 they change nothing.
CPU_OPTIONS = {
    "xla_cpu_prefer_vector_width": "512",
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
}


def import_jax() -> None:
    """Import JAX. Raises UserError if it cannot be, as with the variable JAX_ENABLE_X64=maybe."""
    try:
        importlib.import_module("jax")
    except (ImportError, ValueError) as error:
        raise UserError(
            f"JAX does not start: {reason(error)}; mend the variables JAX_... or install it again"
        ) from error


def keep_programs(workdir: str = "") -> None:
    """Let JAX keep compiled programs; every command calls this before it compiles the first one.

    They lie in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/ddgan_jax/jax, and are found
    again by the next run with the same config and devices: it starts in seconds. With a run folder
    in a bucket they lie in WORKDIR/jax_cache: only the first host of a pod writes them, and all may
    be new after a preemption. Everything is kept however fast it compiled. Without a home folder
    nothing is kept, nor where it cannot be made: that is one line, instead of JAX's two for each
    program. JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    """
    # Every host of a pod reaches the bucket, and so does a new host after a preemption.
    if is_bucket(workdir):
        # Imported here, since every help page imports this module.
        from ddgan_jax.files.run_folder import RunFolder

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
        # By default JAX keeps no program that compiles in less than a second. A size of -1 stands
        # for no limit.
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        if name.upper() in os.environ:
            continue
        os.environ[name.upper()] = str(value)
        # JAX reads the variables when it is imported, which a config file may have done already.
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


_keeping = threading.Lock()


def _cache_dir() -> str | None:
    """Return the folder of JAX's cache, as the caller or a variable has set it."""
    import jax

    # A setting, which is no attribute to a type checker.
    return getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009


@contextlib.contextmanager
def kept_programs() -> Iterator[None]:
    """Let JAX keep the programs that are compiled inside the context, where the commands keep them.

    For functions that somebody else's program calls. JAX's settings are the caller's again when the
    context ends. Nothing changes if the caller has chosen a folder, or has switched the cache off,
    and nothing is kept where the folder cannot be made. JAX has one cache for all threads: what
    another thread compiles meanwhile may be kept, too.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    cache = cache_folder()
    folder = os.fspath(cache / "jax") if cache else ""
    with _keeping:
        ours = bool(folder) and not _cache_dir()
        if ours:
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError:
                ours = False
        if not ours:
            yield
            return
        jax.config.update("jax_compilation_cache_dir", folder)
        try:
            yield
        finally:
            # Another thread may have chosen a folder of its own meanwhile, which stays.
            if _cache_dir() == folder:
                jax.config.update("jax_compilation_cache_dir", None)
                # JAX would go on with the cache that it has opened, whatever the setting says.
                compilation_cache.reset_cache()


@functools.cache
def train_step_options(platform: str) -> Mapping[str, str]:
    """Return the `compiler_options` of the train step's program on a platform, such as "cpu".

    They are CPU_OPTIONS on CPUs and none elsewhere. An option that the user's XLA_FLAGS name is
    left to them. One that this version of XLA refuses is left out, and a line says so.
    """
    # The options are those of XLA's compiler for CPUs.
    if platform != "cpu":
        return {}
    flags = os.environ.get("XLA_FLAGS", "").split()
    chosen = {flag.partition("=")[0].removeprefix("--") for flag in flags}
    return {
        name: value
        for name, value in CPU_OPTIONS.items()
        if name not in chosen and _accepts(name, value)
    }


def _accepts(option: str, value: str) -> bool:
    """Return whether XLA compiles a program with the option."""
    import jax

    try:
        # XLA reads the options before it compiles: the smallest program is enough to know.
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        print(f"without the compiler's option {option}: {reason(error)}", file=sys.stderr)
        return False
    return True
