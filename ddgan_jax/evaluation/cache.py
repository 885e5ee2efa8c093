"""What is made once and then kept: where it lies, and what tells one data set from another."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ddgan_jax.data import Dataset

LOOKED_AT = 64  # examples of a set that its fingerprint depends on


def folder() -> Path:
    """$XDG_CACHE_HOME/ddgan_jax, by default ~/.cache/ddgan_jax; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddgan_jax"


def fingerprint(dataset: "Dataset") -> str:
    """Tells sets, splits, sizes and versions apart: 16 hexadecimal digits.

    Of the set's name and sizes, and of some of its examples, evenly spread.
    """
    info = dataset.info
    ids = np.unique(np.linspace(0, info.num_examples - 1, LOOKED_AT).astype(np.int64))
    images, labels = dataset.read(ids)
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(info), sort_keys=True).encode())
    digest.update(images.tobytes() + labels.tobytes())
    return digest.hexdigest()[:16]
