"""What the import contracts of pyproject.toml cannot say: devices are the business of one file."""

import ast
from pathlib import Path

import pytest

import ddgan_jax

pytestmark = pytest.mark.quick

PACKAGE = Path(ddgan_jax.__file__).parent
DEVICES = {
    *("devices", "local_devices", "device_count", "local_device_count", "process_index"),
    *("pmap", "shard_map", "make_mesh", "Mesh", "NamedSharding", "PartitionSpec"),
}
# Joins the processes of a job before there are devices, and names this one to the others.
MAY_KNOW = {"distributed.py", "training/hosts.py"}


def device_names(path: Path) -> set[str]:
    """The names of DEVICES that a module takes from JAX."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[0] == "jax":
            names.add(node.attr)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jax":
            names |= {alias.name for alias in node.names}
    return names & DEVICES


def test_only_distributed_knows_devices():
    found = {str(path.relative_to(PACKAGE)): device_names(path) for path in PACKAGE.rglob("*.py")}
    assert found["distributed.py"] > {"devices", "pmap", "shard_map", "Mesh"}
    assert {path for path, names in found.items() if names} <= MAY_KNOW
