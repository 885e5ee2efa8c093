"""Open a model by the place where it lies: a run folder, an export, or a repository of a hub."""

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import build, checkpoint, distributed, randomness
from ddgan_jax.config import from_stored
from ddgan_jax.errors import UserError, reason, shown
from ddgan_jax.files import foreign
from ddgan_jax.files.paths import run_folder_path, user_path
from ddgan_jax.files.run_folder import METRICS, SPEED, RunFolder
from ddgan_jax.inference import export_format
from ddgan_jax.inference.model import Model
from ddgan_jax.state import Params

HUB = "hf://"
_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}(@\w[\w./-]{0,95})?", re.ASCII)


def load(path: str | os.PathLike, *, num_steps: int = 0) -> Model:
    """Return the model of an export, of a run folder, or of "hf://user/repository[@revision]".

    num_steps: denoising steps; 0: the number in the config. Raises UserError if no model can be
    read there.
    """
    text = os.fspath(path)
    folder = _fetch(text) if text.startswith(HUB) else user_path(text, "the model's folder")
    with foreign.reading(folder, "export"):
        # The folder of checkpoints tells a run from an export, which has none.
        is_run = RunFolder(folder).checkpoints.exists()
    model = from_run(folder, report=print) if is_run else export_format.read(folder)
    return model.in_steps(num_steps)


def open_model(
    workdir: str | None,
    export_dir: str | None,
    step: int | None = None,
    kind: str = "ema",
) -> Model:
    """Return the model of a run folder or of an export, one of which is None.

    step, kind: see `from_run`. Raises UserError unless the arguments name exactly one model.
    """
    if workdir is not None and export_dir is None:
        return from_run(workdir, step, kind=kind, report=functools.partial(print, file=sys.stderr))
    if export_dir is None or workdir is not None:
        raise UserError("name one model, with `workdir=FOLDER` or with `export_dir=FOLDER`")
    # An export holds one step and one kind of parameters: asking for another must not be ignored.
    if step is not None or kind != "ema":
        given = "`kind`" if step is None else "`step`"
        raise UserError(f"{given} belongs to `workdir`: an export holds one of each")
    return load(export_dir)


def from_run(
    workdir: str | os.PathLike,
    step: int | None = None,
    *,
    kind: str = "ema",
    report: Callable[[str], None],
) -> Model:
    """Return the model of a run folder at `step`, without it at the newest whole checkpoint.

    kind: "ema" for the averaged parameters, "raw" for those of the last step. Nothing changes on
    disk. A damaged newer checkpoint is passed over, with a line to `report`. Raises UserError if
    there is no checkpoint to read.
    """
    # Reading needs a device. Without one a whole checkpoint would look damaged, so that is first.
    distributed.local_devices()
    path = run_folder_path(workdir)
    folder = RunFolder(path)
    step, tree, params = checkpoint.load_ema(folder.checkpoints, step, report=report)
    config = from_stored(tree)
    if kind == "raw":
        params = _raw_params(config, folder.checkpoints, step)
    about = _about_run(folder, step, report=report)
    return Model(config, jax.device_get(params), step, kind, about, source=shown(path, 300))


@randomness.reproducible()
def _raw_params(config: ConfigDict, directory: epath.Path, step: int) -> Params:
    # A checkpoint holds the raw parameters within the whole state; eval_shape computes none of it.
    key = randomness.run_key(config.train.seed)
    like = jax.eval_shape(functools.partial(build.initial_state, config, key))
    return checkpoint.load_state(directory, like, step).generator.params


def _about_run(run: RunFolder, step: int, *, report: Callable[[str], None]) -> dict[str, Any]:
    """Return the provenance, licence and metrics that a run folder holds, as `Model.about`."""
    origin = run.read_origin(report=report)
    provenance: dict[str, Any] = {"trained_with": "ddgan train"}
    if origin.provenance:
        provenance["continued_from"] = origin.provenance
    line = run.metrics_at(step, report=report)
    metrics: dict[str, Any] = {}
    if line:
        metrics = {"source": f"{METRICS} of the run", "step": line.step, **line.metrics}
        # The speed is a property of the machine, and not of the model.
        metrics.pop(SPEED, None)
    return {"provenance": provenance, "licence": origin.licence, "metrics": metrics}


def _fetch(address: str) -> epath.Path:
    """Return the local copy of a repository of models, "hf://user/name[@revision]"."""
    # The address is checked before the import, so that a typing mistake does not ask for an
    # installation.
    if not _REPOSITORY.fullmatch(address.removeprefix(HUB)):
        raise UserError(
            f"{shown(address)} is no repository: write {HUB}user/name or {HUB}user/name@revision"
        )
    try:
        # An extra of the package: most users open folders and need no client of the hub.
        import huggingface_hub  # pyright: ignore[reportMissingImports] an extra of the package
    except ImportError as error:
        raise UserError(f'{HUB} needs huggingface_hub: pip install "ddgan-jax[hub]"') from error
    name, _, revision = address.removeprefix(HUB).partition("@")
    try:
        return epath.Path(huggingface_hub.snapshot_download(name, revision=revision or None))
    # Errors come from the hub, from the connection, or from a library below them.
    except Exception as error:
        raise UserError(f"cannot fetch {address}: {reason(error)}") from error
