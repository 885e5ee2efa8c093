"""Check prepared TFDS sets, whose folders may come from anybody, before TFDS opens them.

TFDS imports the Python modules that `features.json` names, and reads the files that the templates
in `dataset_info.json` make up. Both files are read here first. A set is handed to TFDS only if its
features are TFDS's own, its files are regular and lie in its folder, and its numbers fit the files.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tensorflow_datasets as tfds
from array_record.python import (
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]  # a compiled module
)
from etils import epath

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign, paths

WHAT = "prepared TFDS set"
INFO, FEATURES, METADATA = "dataset_info.json", "features.json", "metadata.json"
MOST_SHARDS = 100_000
RECORDS = "array_record"
# The classes of features that sets of images have, by the end of their names, with the field in
# which each keeps its content. TFDS has others, some of which start programs or read further files.
_FEATURES = {
    "features_dict.FeaturesDict": "featuresDict",
    "image_feature.Image": "image",
    "labeled_image.LabeledImage": "image",
    "class_label_feature.ClassLabel": "classLabel",
    "text_feature.Text": "text",
    "tensor_feature.Tensor": "tensor",
    "scalar.Scalar": "tensor",
    "sequence_feature.Sequence": "sequence",
    "bounding_boxes.BBoxFeature": "boundingBox",
}
_MODULE = "tensorflow_datasets.core.features."

# Names that are part of a file's name.
_NAME = re.compile(r"\w[\w.+-]*")
_TEMPLATE = re.compile(
    r"(\{(DATASET|SPLIT|FILEFORMAT|SHARD_INDEX|NUM_SHARDS|SHARD_X_OF_Y)\}|[\w.+-])*"
)
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**48)]
# TFDS writes JSON of protocol buffers, where large integers are text.
_CountText = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}$")]


class _Split(msgspec.Struct, rename="camel"):
    name: str
    shard_lengths: list[_CountText | _Count] = []
    num_bytes: _CountText | _Count = 0
    filepath_template: str = ""


class _Info(msgspec.Struct, rename="camel"):
    name: str
    version: Annotated[str, msgspec.Meta(pattern=r"^\d{1,9}\.\d{1,9}\.\d{1,9}$")]
    splits: list[_Split] = []
    file_format: str = "tfrecord"
    config_name: str = ""


_Side = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Metadata(msgspec.Struct, omit_defaults=True):
    """Facts about a set that were stored when it was written.

    sha256: the digest of its examples, "" if it is not known. smallest_side, median_side: of the
    widths or heights of the images, whichever is less, in pixels; 0 if they are not known.
    """

    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    smallest_side: _Side = 0
    median_side: _Side = 0


def is_prepared(folder: Path | epath.Path) -> bool:
    """Return whether a set lies in this very folder, .../name/version.

    Raises UserError if the folder may not be read.
    """
    with foreign.reading(folder, WHAT):
        # Older versions of etils call a path that does not exist a file.
        return (folder / INFO).exists()


def open_prepared(folder: Path | epath.Path) -> tfds.core.DatasetBuilder:
    """Return TFDS's reader of the set in a folder, .../name/version.

    Raises UserError if the set is damaged, or has features that no set of images needs.
    """
    try:
        with foreign.reading(folder, WHAT):
            _check_files(folder)
            info = foreign.read_json(folder / INFO, _Info)
            _check_info(folder, info)
            _check_features(folder, foreign.read_json(folder / FEATURES))
            # Only now may TFDS open the set: all that it imports or opens has been checked.
            return tfds.builder_from_directory(folder)
    except UserError as error:
        raise UserError(
            f"{error}; move {shown(folder, 300)} away and prepare the set again"
        ) from error


def metadata(folder: str | os.PathLike) -> Metadata:
    """Return the facts that were stored with a set. Raises UserError if they are damaged."""
    path = epath.Path(folder) / METADATA
    with foreign.reading(path, WHAT):
        return foreign.read_json(path, Metadata) if path.exists() else Metadata()


def check_shards(folder: Path | epath.Path, shards: list[Any]) -> None:
    """Raise UserError unless every shard, a TFDS file instruction, is whole and of its length."""
    for shard in shards:
        path = foreign.member(folder, os.path.basename(shard.filename))
        with foreign.reading(path, f"{RECORDS} file"):
            # Opening a shard reads its index at the end, which a file that was cut off does not
            # have.
            reader = array_record_module.ArrayRecordReader(os.fspath(path))
            try:
                there = reader.num_records()
            finally:
                reader.close()
        if there != shard.examples_in_shard:
            raise UserError(
                f"{shown(path, 300)} is damaged: it has {there:,} examples, and {INFO} says "
                f"{shard.examples_in_shard:,}"
            )


def _check_files(folder: Path | epath.Path) -> None:
    # A bucket holds nothing but objects, and each look at one is a request.
    if paths.is_bucket(folder):
        return
    # The paths of epath take a pipe for a file.
    for path in sorted(Path(folder).iterdir()):
        if not path.is_file() and not path.is_dir():
            raise UserError(f"{shown(path, 300)}, in a {WHAT}, is no regular file")


def _check_info(folder: Path | epath.Path, info: _Info) -> None:
    names = [info.name, info.file_format, *(split.name for split in info.splits)]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(f"{shown(folder / INFO, 300)} holds the name '{shown(name)}'")
    for split in info.splits:
        if not _TEMPLATE.fullmatch(split.filepath_template):
            raise UserError(
                f"{shown(folder / INFO, 300)} names its files '{shown(split.filepath_template)}'"
            )
    shards = sum(len(split.shard_lengths) for split in info.splits)
    # TFDS makes a list of all shards, whose number is only a number in a file.
    if shards > MOST_SHARDS:
        raise UserError(f"{shown(folder / INFO, 300)} has {shards:,} shards")


def _check_features(folder: Path | epath.Path, feature: dict[str, Any]) -> None:
    """Raise UserError unless a feature, and all in it, are TFDS's own and have plain names."""
    path = shown(folder / FEATURES, 300)
    allowed = {*_FEATURES.values(), "pythonClassName", "description", "valueRange"}
    # A list and no recursion, since the file decides how deep its features are nested.
    waiting = [feature]
    while waiting:
        feature = foreign.convert(waiting.pop(), dict[str, Any], source=path)
        name = foreign.convert(feature.get("pythonClassName"), str, source=path)
        # Old sets name their class in this field, which is not the one that is checked here.
        if "type" in feature:
            raise UserError(f"{path} is of an old TFDS: prepare the set again")
        kind = _FEATURES.get(name.removeprefix(_MODULE))
        if kind is None or not name.startswith(_MODULE):
            raise UserError(
                f"{path} has a feature of the class {shown(name)}, and sets of images have none "
                "such"
            )
        if unknown := set(feature) - allowed or (set(feature) & set(_FEATURES.values())) - {kind}:
            raise UserError(f"{path} has a {shown(name)} with {shown(sorted(unknown))}")
        if kind == "featuresDict":
            children = foreign.convert(feature[kind], dict[str, Any], source=path)
            children = foreign.convert(children.get("features", {}), dict[str, Any], source=path)
            for child in children:
                _check_feature_name(path, child)
            waiting += children.values()
        elif kind == "sequence":
            waiting.append(foreign.convert(feature[kind], dict[str, Any], source=path)["feature"])


def _check_feature_name(path: str, name: str) -> None:
    """Raise UserError for a name that leads out of the folder, as a part of a file's name."""
    if not all(_NAME.fullmatch(part) for part in name.split("/")):
        raise UserError(f"{path} has a feature with the name '{shown(name)}'")
