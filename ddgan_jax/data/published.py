"""Know the published files of CIFAR-10 and MNIST by address and checksum, and fetch them."""

import hashlib
import http.client
import io
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from ddgan_jax.errors import UserError, reason
from ddgan_jax.files import atomic, foreign
from ddgan_jax.progress import Display

# Bytes of a published file; the largest has 170 million.
LARGEST_FILE = 2**28


class Remote(NamedTuple):
    """A published file.

    sha256: the checksum of the file, hexadecimal. content: the checksum of the file that is packed
    in it, if that is a single one, so that it is recognised however it is packed.
    """

    folder: str
    name: str
    sha256: str
    content: str = ""


_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"

# The files that are fetched for each set. TFDS compares the MNIST files with the same digests.
PUBLISHED: Mapping[str, tuple[Remote, ...]] = {
    "cifar10": (
        Remote(
            _CIFAR,
            "cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
    "mnist": (
        Remote(
            _MNIST,
            "train-images-idx3-ubyte.gz",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        Remote(
            _MNIST,
            "train-labels-idx1-ubyte.gz",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        Remote(
            _MNIST,
            "t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        Remote(
            _MNIST,
            "t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}
# Another form of CIFAR-10, which is read but never fetched.
CIFAR_BINARY = Remote(
    _CIFAR,
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)

# The number of images of each split.
COUNTS: Mapping[str, Mapping[str, int]] = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "mnist": {"train": 60_000, "test": 10_000},
}

# TFDS takes the names of these labels from the archive.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
}


def file_names(name: str) -> str:
    """Return the names of a set's published files, for messages."""
    return ", ".join(remote.name for remote in PUBLISHED[name])


def fetch(name: str, folder: Path) -> Path:
    """Fetch the published files of a set into `folder`, where they stay.

    A file that is there already is not fetched again, only checked. Returns what `archives.read`
    takes: the file, or the folder where there are several. Raises UserError if there is no
    connection, or if a file is not the published one.
    """
    remotes = PUBLISHED[name]
    for remote in remotes:
        file = folder / remote.name
        if not file.exists():
            _download(remote, file)
        # Never overwritten: it may be somebody's own file of that name.
        elif sha256(file) != remote.sha256:
            raise UserError(f"{file} is not the published file (checksum): move it away")
    return folder / remotes[0].name if len(remotes) == 1 else folder


def sha256(path: str | os.PathLike) -> str:
    """Return the digest of a regular file, hexadecimal. Raises UserError if it cannot be read."""
    with foreign.open_regular(path, "file") as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()


def _download(remote: Remote, file: Path) -> None:
    url = remote.folder + remote.name
    with atomic.replacing(file) as part:
        try:
            _copy(url, part, file.name)
        except (OSError, http.client.HTTPException) as error:
            # urllib wraps the error of the connection, and keeps it as `reason`.
            why = getattr(error, "reason", None) or reason(error)
            raise UserError(f"cannot fetch {url} to {file.parent}: {why}") from error
        if sha256(part) != remote.sha256:
            raise UserError(
                f"{url} gave a file that is not the published one (checksum): try again"
            )


def _copy(url: str, path: os.PathLike, title: str) -> None:
    with urllib.request.urlopen(url, timeout=60) as response, open(path, "wb") as out:
        size = int(response.headers.get("Content-Length") or 0)
        with Display(size // 10**6, title=f"fetching {title}", unit="MB") as display:
            # The server may send more than it says, or never end.
            while (block := response.read(2**20)) and out.tell() < LARGEST_FILE:
                out.write(block)
                display.step(out.tell() // 10**6)
