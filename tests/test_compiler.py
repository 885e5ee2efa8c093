"""What the compiler is told: the user's own choices stay, and a flag that may harm is not set."""

import importlib.machinery
import os

import pytest

from ddgan_jax import compiler

pytestmark = pytest.mark.quick


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


def test_cpu_flags_join_those_of_the_user_and_yield_to_them(monkeypatch):
    chosen, *others = compiler.CPU_FLAGS
    given = f"--xla_dump_to=/there {chosen}=of-the-user"
    monkeypatch.setenv("XLA_FLAGS", given)
    for _ in range(2):
        compiler.use_cpu_flags()
        flags = os.environ["XLA_FLAGS"].split()
        assert flags == [*given.split(), *(f"{name}={compiler.CPU_FLAGS[name]}" for name in others)]


def test_cpu_flags_stay_away_from_libtpu(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    libtpu = importlib.machinery.ModuleSpec("libtpu", None)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", {"libtpu": libtpu}.get)
    compiler.use_cpu_flags()
    assert os.environ["XLA_FLAGS"] == ""
