"""The compiler's settings: the user's own choices stay, and no option can end the process."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ddgan_jax import compiler

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def same_cache():
    """JAX of this process goes on with the folder of its programs."""
    folder = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", folder)


def test_programs_are_kept_unless_the_user_chose_another_place(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler.keep_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "ddgan_jax" / "jax")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    compiler.keep_programs("gs://bucket/run")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "gs://bucket/run/jax_cache"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    compiler.keep_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"


def test_where_programs_cannot_be_kept_one_line_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compiler.keep_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compiled programs are not kept in {tmp_path}/file/ddgan_jax/jax: ")


@pytest.fixture
def anew():
    """Options are asked for anew, in the test and after it."""
    compiler.train_step_options.cache_clear()
    yield
    compiler.train_step_options.cache_clear()


def test_options_are_for_cpus_and_yield_to_the_users_flags(monkeypatch, anew):
    assert compiler.train_step_options("tpu") == {}
    assert compiler.train_step_options("cpu") == compiler.CPU_OPTIONS
    compiler.train_step_options.cache_clear()
    chosen, *others = compiler.CPU_OPTIONS
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=/there --{chosen}=of-the-user")
    assert list(compiler.train_step_options("cpu")) == others


@pytest.mark.parametrize("option", [("xla_of_old", "1"), ("xla_cpu_prefer_vector_width", "many")])
def test_what_xla_refuses_is_left_out_and_one_line_says_so(monkeypatch, capsys, anew, option):
    name, value = option
    monkeypatch.setattr(
        compiler, "CPU_OPTIONS", {name: value, "xla_cpu_parallel_codegen_split_count": "4"}
    )
    for _ in range(2):
        options = compiler.train_step_options("cpu")
        assert options == {"xla_cpu_parallel_codegen_split_count": "4"}
    assert jax.jit(lambda: 1, compiler_options=dict(options))() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"without the compiler's option {name}: ") and name in line


def test_nothing_writes_xla_flags():
    """Neither importing the package's modules nor setting a command up."""
    program = (
        "import os, ddgan_jax; from ddgan_jax import checkpoint, compiler, distributed\n"
        "compiler.keep_programs(); distributed.all_devices()\n"
        "assert 'XLA_FLAGS' not in os.environ"
    )
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", program], env=env, check=True, timeout=100)
    package = Path(compiler.__file__).parent
    written = [path.name for path in package.rglob("*.py") if "XLA_FLAGS" in path.read_text()]
    assert written == ["compiler.py"]
