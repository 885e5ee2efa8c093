"""Choose the examples of a split that are read: those large enough, held out or not.

`data.split = "train"` with `data.holdout = 0.1` reads nine tenths of the split, and
`"train:holdout"` reads the rest. Which examples are held out depends on the size of the split and
on the share alone, and not on the seed of a run; those of a smaller share are among those of
a larger one.
"""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from ml_collections import ConfigDict

from ddgan_jax.data.datasets import RecordDataset, in_chunks
from ddgan_jax.data.decode import FITTED, WAYS_TO_FIT
from ddgan_jax.data.order import HOLDOUT_ORDER, permutation
from ddgan_jax.errors import UserError, shown

# What `ddgan evaluate --split` calls the part that is held out.
HOLDOUT = "holdout"
_SUFFIX = f":{HOLDOUT}"


def whole_split(split: str) -> str:
    """Return the split that a part belongs to: "train" for "train" and for "train:holdout"."""
    return split.removesuffix(_SUFFIX)


def chosen_split(asked: str, trained_on: str) -> str:
    """Return the split to read: "holdout" is the part that the split of the training leaves out.

    asked: what a user names, "" for the split of the training.
    """
    return whole_split(trained_on) + _SUFFIX if asked == HOLDOUT else asked or trained_on


def choose(
    records: RecordDataset,
    data: ConfigDict,
    *,
    size: int,
    smallest: int,
    report: Callable[[str], None],
) -> RecordDataset:
    """Return the set with the examples that `data.resize`, `.holdout` and `.split` leave.

    size: the width or height of all images, whichever is less, in pixels, 0 if they differ.
    smallest: the least of them, 0 if it is not known. report: takes a line about images that are
    left out. Raises UserError if nothing is left, and for images that are too small where
    `data.resize` refuses them.
    """
    places = _large_enough(records, data, size, smallest or size, report)
    places = places[_part(len(places), data)]
    # A set that is read whole needs no list, which could have many millions of entries.
    whole = len(places) == records.info.num_examples
    return records if whole else records.restricted_to(places)


def _large_enough(
    records: RecordDataset,
    data: ConfigDict,
    size: int,
    smallest: int,
    report: Callable[[str], None],
) -> np.ndarray:
    """Return the places of images that `data.resize` lets pass."""
    wanted, everything = records.info.image_size, np.arange(records.info.num_examples)
    # Looking at all images takes long. Where nothing is known of a set and small images are
    # refused, the one that is met first is refused when it is read.
    unknown = data.resize == "refuse" and not smallest
    if data.resize in FITTED or smallest >= wanted or unknown:
        return everything
    sides = np.full(len(everything), size) if size else _shorter_sides(records)
    large = everything[sides >= wanted]
    small = len(everything) - len(large)
    count = f"{small:,} of {len(everything):,} images of {records.info.name}"
    because = f"smaller than data.image_size={wanted} (the smallest has {sides.min()} pixels)"
    if not len(large):
        raise UserError(f"{count} are {because}: {WAYS_TO_FIT}")
    if small and data.resize == "refuse":
        raise UserError(f"{count} are {because}: {WAYS_TO_FIT}, 'skip' leaves them out")
    if small:
        report(f"left out {count}: {because}")
    return large


def _shorter_sides(records: RecordDataset) -> np.ndarray:
    """Return the width or height of every image, whichever is less; reads no more than heads."""
    sides = np.empty(records.info.num_examples, np.int64)

    def look(ids: np.ndarray) -> None:
        sides[ids] = records.shorter_sides(ids)

    in_chunks(look, records, title=f"sizes of {records.info.name}")
    return sides


def _part(count: int, data: ConfigDict) -> np.ndarray:
    """Return the places, of `count`, of the part that `data.split` names, in their order."""
    wanted = data.split.endswith(_SUFFIX)
    if not data.holdout:
        if wanted:
            raise UserError(
                f"data.split={shown(data.split)!r} needs data.holdout > 0, the share that the "
                "training leaves out"
            )
        return np.arange(count)
    # The decimal as it is written: in floating point 0.07 * 100 is more than 7.
    share = Fraction(repr(float(data.holdout)))
    number = math.ceil(share * count) if share < 1 else int(share)
    if number >= count:
        raise UserError(f"data.holdout={data.holdout:g} leaves nothing of {count:,} to train on")
    held_out = np.zeros(count, bool)
    held_out[permutation(0, (HOLDOUT_ORDER,), count)[:number]] = True
    return np.flatnonzero(held_out == wanted)
