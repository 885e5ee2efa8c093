"""Read data sets as batches of uint8 images, from TFDS's files without TensorFlow.

The straight line:

    dataset = open_dataset(config)              # sources: which set, from which folder
    stream = batches(dataset, batch_size=256, seed=0, start_step=0)       # pipeline
    with contextlib.closing(stream):
        for batch in stream: ...                # state.Batch

Reading    order      the examples of a train step, a pure function of (seed, step)
           selection  which examples are large enough, and which are held out
           datasets   the forms of a set: in memory, in files, stacked digits; its fingerprint
           catalog    where prepared sets lie, and how to get one that is missing
           prepared   the checks of a set, before TFDS opens it
           decode     the only place that decodes images and fits their size
           stacks     the sets of three digits in one image
           mixture    the toy set of points in the plane
Listing    image_folders, image_layouts   folders and zip files of images, their splits and classes
           image_checks                   one decoding of all of them
           image_metadata                 labels in metadata.csv and metadata.jsonl
           array_files, tables            .npy and .npz, Parquet and Arrow files of images
Writing    builders                       sets in TFDS's form; `digits` at first use
           folder_sets, table_sets        sets from what is listed; `folder` at first use
           published                      the published files of CIFAR-10 and MNIST
prepare/   `ddgan prepare`; it imports this package, and nothing here imports it

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


# Python calls this for names that the module does not have yet (PEP 562).
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
