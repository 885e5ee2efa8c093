"""Read the configs of run folders, checkpoints and exports, also those of earlier versions."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config.files import lists_to_tuples
from ddgan_jax.config.schema import make
from ddgan_jax.errors import UserError


def from_stored(tree: Mapping[str, Any]) -> ConfigDict:
    """Return the locked config in a run folder, a checkpoint or an export, as JSON left it.

    A field that did not exist when the config was stored gets its default, since the code of that
    time behaved like the default. The tree may come from an untrusted file: raises UserError for
    anything that is not a config, and for a model that cannot be built, as `check_model` does.
    """
    # Imported here, since config files and help pages need no checks.
    from ddgan_jax.config.model_checks import check_fields, check_model

    try:
        tree = lists_to_tuples(tree)
    except ValueError as error:
        raise UserError(f"this is not a config ({error})") from error
    sections = check_fields(tree, complete=False)
    config = ConfigDict({name: make(section) for name, section in sections.items()})
    for name, fields in tree.items():
        config[name].update(fields)
    # The defaults of new fields and the stored values must also fit together.
    check_model(config)
    return config.lock()
