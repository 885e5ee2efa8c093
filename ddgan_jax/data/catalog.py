"""Find prepared sets by name, and tell how to get one that is missing."""

import difflib
import os
import re
import shlex
from pathlib import Path
from typing import Any, cast

import msgspec
import tensorflow_datasets as tfds
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax.data import mixture, prepared, published, stacks
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import foreign, paths

# A folder, or one in a bucket.
Place = Path | epath.Path
# Names that TFDS does not have.
OWN = ("digits", "folder", *stacks.SETS, *mixture.SETS)
# The groups are the set, its configuration and its version.
NAME = re.compile(r"(\w+)(?:/([\w.\-]+))?(?::(\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
# TFDS writes this file beside the configurations of a set.
_DEFAULT_CONFIG = Path(".config") / "metadata.json"


class _Common(msgspec.Struct):
    default_config_name: str = ""


def resolve_data_dir(data_dir: str | os.PathLike[str], *, to_write: bool = False) -> Place:
    """Return the folder of prepared sets: `data_dir`, else $TFDS_DATA_DIR, else TFDS's default.

    It may be a bucket, gs://..., unless it is `to_write`: sets are written to local folders. Raises
    UserError for a path that cannot be one, and for other URLs.
    """
    chosen, what = _named(data_dir, to_write)
    place = paths.user_path(chosen, what)
    return place if paths.is_bucket(chosen) else Path(place)


def _named(data_dir: str | os.PathLike[str], to_write: bool) -> tuple[str, str]:
    """Return the text that names the folder of prepared sets, and the parameter that holds it."""
    # The same order of places as TFDS has, so that its own programs find the same sets.
    given = os.fspath(data_dir)
    what = "data_dir" if given else "TFDS_DATA_DIR"
    chosen = given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if not paths.is_bucket(chosen):
        return chosen, what
    # The reader of ArrayRecord files opens objects of Google's storage alone.
    if not chosen.startswith("gs://"):
        raise UserError(
            "sets are read from local or mounted folders and from gs://: copy or mount "
            f"{shown(chosen)}"
        )
    if to_write:
        raise UserError(
            "sets are written to local folders: prepare the set in one, and copy its folder to "
            f"{shown(chosen)}"
        )
    return chosen, what


def check_places(data: ConfigDict) -> None:
    """Raise UserError if `data.dir` or `data.path` cannot name a place; nothing is opened."""
    chosen, what = _named(data.dir, to_write=data.name == "folder")
    # The package that opens a bucket is needed on the machines that train alone.
    if not paths.is_bucket(chosen):
        paths.user_path(chosen, what)
    if data.name == "folder" and not data.path:
        raise UserError("data.name='folder' needs data.path, the folder of images")


def find_prepared(name: str, data_dir: Place) -> tfds.core.DatasetBuilder | None:
    """Return a reader of the newest version of a set in the folder, None if there is none.

    The code that wrote the set is not needed. Raises UserError for a damaged set, see `prepared`.
    """
    folder = find_folder(name, data_dir)
    return None if folder is None else prepared.open_prepared(folder)


def features_of(builder: tfds.core.DatasetBuilder) -> tfds.features.FeaturesDict:
    """Return the features of a set by name. Raises UserError if it has no such features."""
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise UserError(f"{builder.name} has no features by name, as sets of images have")
    return features


def find_folder(name: str, data_dir: Place) -> Place | None:
    """Return the folder of the newest version of a prepared set, None if there is none."""
    if not (parts := NAME.fullmatch(name)):
        return None
    stem, config, version = parts.groups()
    with foreign.reading(data_dir, "folder of prepared sets"):
        folder = data_dir / stem
        # A set with several configurations has a folder for each, and TFDS marks the default one.
        if config is None and not _versions(folder):
            common = folder / _DEFAULT_CONFIG
            if not common.exists():
                return None
            config = foreign.read_json(common, _Common).default_config_name
        if config:
            folder = foreign.member(folder, config)
        there = [v for v in _versions(folder) if version in (None, v.name)]
        return there[-1] if there else None


def _versions(folder: Place) -> list[epath.Path]:
    """Return the folders of a set's versions, whole or damaged, the newest last."""
    # Damaged versions are listed too: that the newest one is damaged must be said, and not hidden
    # by an older one.
    there = [
        path
        for path in paths.entries(folder)
        if _VERSION.fullmatch(path.name)
        and any((path / name).exists() for name in (prepared.FEATURES, prepared.INFO))
    ]
    return sorted(there, key=lambda path: tuple(map(int, path.name.split("."))))


def tfds_builder(name: str, data_dir: Place) -> tfds.core.DatasetBuilder:
    """Return TFDS's own builder of a set, for writing ArrayRecord.

    Raises UserError if TFDS does not know the name, configuration or version, ImportError if the
    set's code needs TensorFlow even to describe itself.
    """
    if not (parts := NAME.fullmatch(name)):
        raise UserError(_unknown(name, data_dir))
    stem, config, version = parts.groups()
    options = {"config": config, "version": version}
    try:
        return without_bucket(tfds.builder_cls(stem))(
            data_dir=data_dir,
            file_format="array_record",
            **{key: value for key, value in options.items() if value},
        )
    # TFDS asserts that a version is a known one.
    except (ValueError, AssertionError) as error:
        raise UserError(_unknown(name, data_dir)) from error


def without_bucket(stock: type[tfds.core.DatasetBuilder]) -> Any:
    """Return the same class of builders, except that they never look for their set in a bucket.

    For each set that is not there yet, TFDS would look, and leave an empty temporary folder behind.

    The result has no narrower type, since the classes of TFDS have constructors that their common
    base class has not.
    """

    class Local(stock, skip_registration=True):
        name = stock.name

        def _info(self) -> tfds.core.DatasetInfo:
            info = cast(Any, super())._info()
            info.initialize_from_bucket = lambda: None
            return info

    # TFDS records the module in the set as its origin.
    Local.__module__ = stock.__module__
    return Local


def how_to_prepare(name: str, data_dir: str = "") -> str:
    """Return the command that prepares a set, for messages.

    data_dir: the folder of prepared sets that the command names, "" for none.
    """
    command = f"ddgan prepare --dataset={name}"
    command += f" --data-dir={shlex.quote(data_dir)}" if data_dir else ""
    if name in published.PUBLISHED:
        return (
            f"run `{command} --download`, or `{command} --archive=PATH` if you have "
            f"{published.file_names(name)}"
        )
    return f'run `pip install "ddgan-jax[tf]"`, then `{command}`'


def _unknown(name: str, data_dir: Place) -> str:
    stem = name.split(":")[0].split("/")[0]
    # Near names may be configurations of the same set, sets of TFDS, or sets in the folder.
    known = list(tfds.list_builders(with_community_datasets=False))
    if stem in known:
        known = [f"{stem}/{config}" for config in tfds.builder_cls(stem).builder_configs] or [stem]
    else:
        # Names of ours, and sets in the folder that TFDS has never heard of.
        known += OWN
        known += [p.name for p in paths.entries(data_dir) if NAME.fullmatch(p.name)]
    near = difflib.get_close_matches(shown(name), sorted(set(known)), n=5, cutoff=0.5)
    hint = f"; nearest names: {', '.join(near)}" if near else ""
    return (
        f"no data set '{shown(name)}': neither prepared in {data_dir} nor one of TFDS's{hint}. "
        "For images of your own: ddgan prepare --dataset=NAME --images=FOLDER"
    )
