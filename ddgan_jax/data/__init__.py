"""Images from TFDS sets to batches of uint8 arrays, without TensorFlow.

The straight line:

    dataset = open_dataset(config)              # sources: which set, from which folder
    stream = batches(dataset, batch_size=256, seed=0, start_step=0)       # pipeline
    with contextlib.closing(stream):
        for batch in stream: ...                # types.Batch

`order` says which examples a step reads, as a pure function of (seed, step). `datasets` holds the
examples, decoded once in memory where they fit, otherwise decoded by `images` while training.
`prepare` writes TFDS sets through `builders`: from `archives`, from folders (`image_folders`,
`image_layouts`, `folder_sets`) and from arrays (`array_files`); `digits` and `folder` are written
that way on their first use. `prepared` checks a set before TFDS opens it. `fingerprint` tells
whether a set is still the same.

Importing this package is cheap: TFDS, Grain and Pillow are imported on the first use of a name.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddgan_jax.data.datasets import Dataset, DatasetInfo, fingerprint
    from ddgan_jax.data.order import example_ids
    from ddgan_jax.data.pipeline import batches
    from ddgan_jax.data.sources import open_dataset

__all__ = ["Dataset", "DatasetInfo", "batches", "example_ids", "fingerprint", "open_dataset"]

_HOMES = {
    "Dataset": "datasets",
    "DatasetInfo": "datasets",
    "batches": "pipeline",
    "example_ids": "order",
    "fingerprint": "datasets",
    "open_dataset": "sources",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
