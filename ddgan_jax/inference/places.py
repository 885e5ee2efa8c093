"""Find out from the name that a person gives where images go, and in which format."""

import os
from typing import NamedTuple

from etils import epath

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files.atomic import write_errors
from ddgan_jax.files.paths import is_bucket, user_path

FORMS = (".png", ".npy", ".npz", ".array_record")
# Endings of pictures, arrays and archives that are not written here. Any other ending is a part of
# the name of a folder.
_OTHER_FORMS = (
    *(".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf", ".mp4"),
    *(".pt", ".pth", ".pkl", ".h5", ".hdf5", ".mat", ".csv", ".json", ".txt", ".html"),
    *(".safetensors", ".tfrecord", ".tfrecords", ".parquet", ".zip", ".tar", ".gz", ".tgz"),
)


class Place(NamedTuple):
    """A place for images. form: one of FORMS, or "" for a folder."""

    path: epath.Path
    form: str


def place_of(out: str | os.PathLike) -> Place:
    """Return the place that a person named. Its ending tells the form, a "/" behind it a folder.

    Raises UserError for an ending of a format that is not written, and if a file is where a folder
    should be, or a folder where a file should be.
    """
    written = os.fspath(out)
    path = user_path(written, "out")
    # epath drops a "/" at the end, so that the text as written is asked.
    form = "" if written.endswith("/") else path.suffix.lower()
    if form in _OTHER_FORMS:
        raise UserError(
            f"cannot write {shown(path, 300)}: name a {', '.join(FORMS)} or a folder, not {form}"
        )
    form = form if form in FORMS else ""
    if not is_bucket(path):
        # "." and ".." are folders with names; a lock lies beside them under these.
        path = epath.Path(os.path.abspath(path)) if path.name in ("", "..") else path
        if not path.name:
            raise UserError(f"cannot write {shown(path, 300)}: name a folder")
        with write_errors(path):
            if path.exists() and not (os.path.isfile if form else os.path.isdir)(path):
                there = "no regular file" if form else "no folder"
                raise UserError(f"{shown(path, 300)} is {there}: name another place")
        if form == ".array_record" and not _is_utf8(path):
            raise UserError(f"{shown(path, 300)} is not UTF-8, which .array_record needs")
    return Place(path, form)


def _is_utf8(path: epath.Path) -> bool:
    try:
        # Python keeps bytes that are not UTF-8 as surrogates, which cannot be encoded.
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True
