"""Give `from_json` to the config.py of runs that older versions imported.

Such a config.py names this module.
"""

from ddgan_jax.config.files import from_json

__all__ = ["from_json"]
