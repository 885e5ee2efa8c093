"""Fetch models from the Hugging Face hub and put them there, with the hub's own client.

A repository is an address, hf://user/name, or hf://user/name@revision to read another branch, tag
or commit. The client is the extra `hub`. It finds the token by itself, in $HF_TOKEN or where
`hf auth login` has left it.
"""

import os
import re
from typing import Any

from etils import epath

from ddgan_jax.errors import UserError, reason, shown

SCHEME = "hf://"
_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"\w[\w./-]{0,95}", re.ASCII)


def repository(address: str, parameter: str = "") -> str:
    """Return the name "user/repository" of an address, with or without hf://, to write to.

    parameter: the parameter that holds it, for messages. Raises UserError for anything else.
    """
    name = address.removeprefix(SCHEME)
    if not _REPOSITORY.fullmatch(name):
        before = f"`{parameter}={shown(address)}`" if parameter else shown(address)
        raise UserError(f"{before} is no repository: write {SCHEME}user/name")
    return name


def fetch(address: str) -> epath.Path:
    """Return the local copy of a repository of models, "hf://user/name[@revision]".

    Raises UserError if it cannot be fetched.
    """
    # The address is checked before the import, so that a typing mistake does not ask for an
    # installation.
    name, at, revision = address.removeprefix(SCHEME).partition("@")
    if not _REPOSITORY.fullmatch(name) or (at and not _REVISION.fullmatch(revision)):
        raise UserError(
            f"{shown(address)} is no repository: write {SCHEME}user/name or "
            f"{SCHEME}user/name@revision"
        )
    client = _client()
    try:
        return epath.Path(client.snapshot_download(name, revision=revision or None))
    # Errors come from the hub, from the connection, or from a library below them.
    except Exception as error:
        raise UserError(f"cannot fetch {address}: {reason(error)}") from error


def make(name: str, *, private: bool, token: str | None) -> None:
    """Make a repository of models unless it is there; see `push`.

    This finds out whether the hub can be reached and knows the user, before any work is done.
    """
    client = _client()
    try:
        client.HfApi(token=token).create_repo(name, private=private, exist_ok=True)
    except Exception as error:
        raise _refused(client, name, error) from error


def push(folder: str | os.PathLike, name: str, *, token: str | None) -> str:
    """Write the files of an export as one commit to a repository, and return its address.

    name: "user/repository", which is there. token: None for the client's own. What was in the
    repository stays in its history. Raises UserError if the hub refuses, or cannot be reached.
    """
    client = _client()
    try:
        client.HfApi(token=token).upload_folder(
            repo_id=name, folder_path=os.fspath(folder), commit_message="Write a ddgan_jax export"
        )
    except Exception as error:
        raise _refused(client, name, error) from error
    return f"{SCHEME}{name}"


def _client() -> Any:
    try:
        # An extra of the package: most users open folders and need no client of the hub.
        import huggingface_hub  # pyright: ignore[reportMissingImports] an extra of the package
    except ImportError as error:
        raise UserError(f'{SCHEME} needs huggingface_hub: pip install "ddgan-jax[hub]"') from error
    return huggingface_hub


def _refused(client: Any, name: str, error: Exception) -> UserError:
    """Return the error that says why a repository cannot be written."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    why = reason(error)
    # The hub's own words begin with a page about the request.
    if status == 401:
        why = "the hub does not know you: log in with `hf auth login`, or set HF_TOKEN"
    elif status == 403:
        why = "the token may not write there: make one that may write, or name another repository"
    return UserError(f"cannot write {SCHEME}{name}: {why}")
