"""Configs that come from a file: of a run folder, a checkpoint or an export."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config.model_checks import check_fields, check_model
from ddgan_jax.config.schema import make


def from_stored(tree: Mapping[str, Any]) -> ConfigDict:
    """Return the locked config in a run folder, a checkpoint or an export, as JSON left it.

    A field that is newer than what was stored had, in effect, its default, and gets it. The tree
    may come from anybody: raises UserError for whatever is not a config, and for one whose networks
    or noise schedule cannot be, as `model_checks.check_model` says.
    """
    tree = _with_tuples(tree)
    sections = check_fields(tree, complete=False)
    config = ConfigDict({name: make(section) for name, section in sections.items()})
    for name, fields in tree.items():
        config[name].update(fields)
    check_model(config)
    return config.lock()


def _with_tuples(tree: Any) -> Any:
    """Return the tree with tuples for the lists of its sections; JSON has only lists."""
    if not isinstance(tree, Mapping):
        return tree
    return {
        name: {key: tuple(value) if isinstance(value, list) else value for key, value in f.items()}
        if isinstance(f, Mapping)
        else f
        for name, f in tree.items()
    }
