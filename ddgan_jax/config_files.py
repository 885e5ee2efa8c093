"""The place from which the config.py of runs that older versions imported takes `from_json`."""

from ddgan_jax.config.files import from_json

__all__ = ["from_json"]
