"""Tell which split and class the images of a folder belong to, by the customs of the field.

- `dataset.json` beside the images, as StyleGAN's and EDM's tools write it, holds their labels. Sets
  of that form without it, `00000/img00000000.png`, have none: their folders are only shards.
- `metadata.csv` or `metadata.jsonl` there or in the folders of splits, as Hugging Face's sets have
  them, hold the labels if they have a column for them.
- Folders `train`, `val`, `valid`, `validation` and `test` are splits.
- Otherwise, and inside of splits, the first level of folders are the classes.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from ddgan_jax.data import image_metadata
from ddgan_jax.data.array_files import LARGEST_LABEL, num_classes
from ddgan_jax.data.image_folders import INDEX, ImageFolder
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign

SPLITS = ("train", "val", "valid", "validation", "test")
# The split of sets that have no others.
TRAIN = "train"

STRAY = "beside the class folders"
BESIDE_SPLITS = "beside the split folders"
UNTRAINED = "of a class without an image to train on"

# The names that the tools of StyleGAN and EDM give.
_SHARD, _SHARD_FILE = re.compile(r"\d{5,}"), re.compile(r"img\d+\.\w+")


class Layout(NamedTuple):
    """The splits of a set, each its images with their labels (None: it has no classes).

    classes: names in the order of the labels, their number if they have no names, or None. skipped:
    the number of images that belong to no split or class, by reason.
    """

    splits: Mapping[str, Sequence[tuple[str, int | None]]]
    classes: Sequence[str] | int | None
    skipped: Counter[str]

    def class_counts(self) -> dict[str, list[int]]:
        """Return the number of images of each class, for each split of a set with classes."""
        count = self.classes if isinstance(self.classes, int) else len(self.classes or ())
        return {
            split: np.bincount(
                np.array([label for _, label in images], np.int64), minlength=count
            ).tolist()
            for split, images in self.splits.items()
            if count
        }


class _Index(msgspec.Struct):
    """dataset.json: pairs of a file's name and its label, or null."""

    labels: (
        list[tuple[str, Annotated[int, msgspec.Meta(ge=0, le=LARGEST_LABEL)]]]
        | None
        | msgspec.UnsetType
    ) = msgspec.UNSET


def layout_of(folder: ImageFolder) -> Layout:
    """Return the splits and classes of a folder's images.

    Raises UserError where labels are not whole, where a folder's name cannot name a class, and
    where it is not clear whether folders are classes.
    """
    if folder.index is not None:
        content = folder.read(folder.index)
        index = foreign.decode_json(content, _Index, source=folder.source(INDEX))
        if index.labels is not msgspec.UNSET:
            return _indexed(folder, index.labels)
    splits, skipped = _split(folder.names)
    files = {name: folder.read(name) for name in folder.metadata}
    if labels := image_metadata.read_labels(files, os.fspath(folder.root)):
        return _by_metadata(folder, labels, splits, skipped)
    in_folders = [rest for images in splits.values() for _, rest in images if "/" in rest]
    # Also where no image lies in a folder.
    if all(map(_in_shard, in_folders)):
        return _unlabelled(splits, skipped)
    return _by_folder(folder, splits, skipped)


def _indexed(folder: ImageFolder, labels: list[tuple[str, int]] | None) -> Layout:
    # StyleGAN's tools write null where a set has no labels.
    if not labels:
        return Layout({TRAIN: [(name, None) for name in folder.names]}, None, Counter())
    source, by_name = folder.source(INDEX), dict(labels)
    if len(by_name) < len(labels):
        raise UserError(f"{shown(source, 300)} gives an image two labels")
    _check_complete(source, by_name, folder.names)
    classes = num_classes(np.array(list(by_name.values()), np.int64), source)
    return Layout({TRAIN: [(n, by_name[n]) for n in folder.names]}, classes, Counter())


def _by_metadata(
    folder: ImageFolder, labels: Mapping[str, str | int], splits: "_Rests", skipped: Counter[str]
) -> Layout:
    source = f"{folder.root}/{folder.metadata[0]}"
    _check_complete(source, labels, [name for images in splits.values() for name, _ in images])
    named = {split: [name for name, _ in images] for split, images in splits.items()}
    trained_on = named.get(TRAIN) or [name for names in named.values() for name in names]
    classes, numbers = image_metadata.numbered([labels[name] for name in trained_on], source)
    if not isinstance(classes, int):
        check_names(os.fspath(folder.root), classes)
    number = {str(labels[name]): k for name, k in zip(trained_on, numbers, strict=True)}
    found = {
        split: [(n, number[str(labels[n])]) for n in names if str(labels[n]) in number]
        for split, names in named.items()
    }
    skipped[UNTRAINED] += sum(map(len, named.values())) - sum(map(len, found.values()))
    return Layout({s: images for s, images in found.items() if images}, classes, +skipped)


def _check_complete(source: str, labels: Mapping[str, object], names: Sequence[str]) -> None:
    """Raise UserError unless exactly the images have labels: training would not notice."""
    if unknown := sorted(labels.keys() - set(names)):
        what = "file that is no image" if len(unknown) == 1 else "files that are no images"
        raise UserError(
            f"{shown(source, 300)} gives labels to {len(unknown):,} {what} of the set, such as "
            f"{shown(unknown[0])}"
        )
    if missing := [name for name in names if name not in labels]:
        raise UserError(
            f"{shown(source, 300)} gives no label to {len(missing):,} of the {len(names):,} "
            f"images, such as {shown(missing[0])}"
        )


# Of each split: names, and the rest of the names below the split's folder.
_Rests = Mapping[str, Sequence[tuple[str, str]]]


def _split(names: Sequence[str]) -> tuple[_Rests, Counter[str]]:
    """Return the images of each split, and how many belong to none.

    A folder called `test` among others that are no splits is a class.
    """
    tops = {name.split("/")[0] for name in names if "/" in name}
    # One folder called `test` among others is a class of that name; two such folders are splits.
    known = {top for top in tops if top.lower() in SPLITS}
    if not known or (len(known) == 1 and tops != known):
        return {TRAIN: [(name, name) for name in names]}, Counter()
    splits: dict[str, list[tuple[str, str]]] = {}
    skipped: Counter[str] = Counter()
    for name in names:
        top, _, rest = name.partition("/")
        if rest and top in known:
            splits.setdefault(top.lower(), []).append((name, rest))
        else:
            skipped[BESIDE_SPLITS] += 1
    return splits, skipped


def _unlabelled(splits: _Rests, skipped: Counter[str]) -> Layout:
    named = {split: [(name, None) for name, _ in images] for split, images in splits.items()}
    return Layout(named, None, skipped)


def _in_shard(rest: str) -> bool:
    folder, _, file = rest.partition("/")
    return bool(_SHARD.fullmatch(folder) and _SHARD_FILE.fullmatch(file))


def _by_folder(folder: ImageFolder, splits: _Rests, skipped: Counter[str]) -> Layout:
    """Return the layout in which the first level of folders are the classes."""
    inside = {split: [i for i in images if "/" in i[1]] for split, images in splits.items()}
    labelled, total = (sum(map(len, s.values())) for s in (inside, splits))
    # A few files beside the classes are strays. If most are, the folders may be no classes at all.
    if total - labelled > labelled:
        raise UserError(
            f"{shown(folder.root, 300)} has {labelled:,} images in sub-folders, which would be "
            f"classes, and {total - labelled:,} beside them: move the one or the other away"
        )
    skipped[STRAY] += total - labelled
    # Classes come from the images to train on, since a network cannot draw a class it never saw.
    trained_on = inside.get(TRAIN) or [image for images in inside.values() for image in images]
    classes = sorted({rest.split("/")[0] for _, rest in trained_on})
    check_names(os.fspath(folder.root), classes)
    number = {name: k for k, name in enumerate(classes)}
    numbered = {
        split: [(name, number.get(rest.split("/")[0])) for name, rest in images]
        for split, images in inside.items()
    }
    kept = {
        split: [image for image in images if image[1] is not None]
        for split, images in numbered.items()
    }
    skipped[UNTRAINED] += labelled - sum(map(len, kept.values()))
    # `+` drops the reasons that count nothing.
    return Layout({s: images for s, images in kept.items() if images}, classes, +skipped)


def check_names(root: str, classes: Iterable[str]) -> None:
    """Raise UserError for a name that TFDS, which keeps one a line, would not give back.

    Two classes of one name are refused too.
    """
    seen: set[str] = set()
    for name in classes:
        if name in seen:
            raise UserError(
                f"{shown(root, 300)} has two classes with the name '{shown(name)}': rename one"
            )
        seen.add(name)
        if not name.isprintable() or name != name.strip():
            raise UserError(
                f"'{shown(name)}' in {shown(root, 300)} cannot name a class: rename it with "
                "printable characters and no space at an end"
            )
