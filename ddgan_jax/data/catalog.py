"""Where prepared sets lie, which sets there are, and how to get one that is missing."""

import difflib
import os
import re
from pathlib import Path

import tensorflow_datasets as tfds

from ddgan_jax import mixture
from ddgan_jax.data import archives
from ddgan_jax.errors import UserError

OWN = ("digits", "folder", "stacked_mnist", *mixture.SETS)  # names of ours, not TFDS's
NAME = re.compile(r"\w+(/[\w.\-]+)?(:\d+\.\d+\.\d+)?")  # set, configuration, version


def resolve_data_dir(data_dir: str | os.PathLike[str]) -> Path:
    """The folder of prepared sets: `data_dir`, or if empty $TFDS_DATA_DIR, or TFDS's default.

    Raises:
      UserError: a URL such as gs://..., from which ArrayRecord files cannot be read.
    """
    chosen = os.fspath(data_dir) or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in chosen:
        raise UserError(f"sets are read from local or mounted folders: copy or mount {chosen}")
    return Path(chosen).expanduser()


def find_prepared(name: str, data_dir: Path) -> tfds.core.DatasetBuilder | None:
    """The newest version of a set that lies in the folder, read without the code that made it."""
    if not NAME.fullmatch(name):
        return None
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        return None


def tfds_builder(name: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    """TFDS's own builder of a set, for writing ArrayRecord.

    Raises:
      UserError: TFDS does not know the name, configuration or version.
      ImportError: the set's code needs TensorFlow even to describe itself.
    """
    if not NAME.fullmatch(name):
        raise UserError(_unknown(name, data_dir))
    try:
        return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except (ValueError, AssertionError) as error:
        raise UserError(_unknown(name, data_dir)) from error


def is_prepared(folder: Path) -> bool:
    """Whether a set lies in this very folder, .../name/version."""
    return (folder / "dataset_info.json").is_file()


def how_to_prepare(name: str, data_dir: str = "") -> str:
    """The command that prepares a set, for messages. data_dir: its --data_dir, "" for none."""
    command = f"ddgan prepare --dataset={name}" + (f" --data_dir={data_dir}" if data_dir else "")
    if name in archives.PUBLISHED:
        return (
            f"run `{command} --download`, or give --archive=PATH instead of --download if you "
            f"have {archives.file_names(name)}"
        )
    return f'run `pip install "ddgan-jax[tf]"`, then `{command}`'


def _unknown(name: str, data_dir: Path) -> str:
    stem = name.split(":")[0].split("/")[0]
    known = list(tfds.list_builders(with_community_datasets=False))
    if stem in known:
        known = [f"{stem}/{config}" for config in tfds.builder_cls(stem).builder_configs] or [stem]
    else:
        known += OWN
        known += [path.name for path in data_dir.glob("*") if path.name != "downloads"]
    near = difflib.get_close_matches(name, sorted(set(known)), n=5, cutoff=0.5)
    hint = f"; nearest names: {', '.join(near)}" if near else ""
    return (
        f"no data set {name!r}: neither prepared in {data_dir} nor one of TFDS's{hint}. "
        "For images of your own: data.name=folder data.path=FOLDER"
    )
