"""Open a model by its place: a run folder, an export, a repository of a hub, or this package."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import build, distributed, randomness
from ddgan_jax.config import MOST_TIMESTEPS, from_stored
from ddgan_jax.errors import UserError, shown, whole_install
from ddgan_jax.files import foreign
from ddgan_jax.files.paths import run_folder_path, user_path
from ddgan_jax.files.run_folder import METRICS, SPEED, RunFolder
from ddgan_jax.inference import arguments, export_format, hub
from ddgan_jax.inference.card_metadata import SCORES
from ddgan_jax.inference.model import Model
from ddgan_jax.state import Params

# Trained models that come with this package, each an export in a folder of its name.
BUILT_IN = epath.Path(__file__).parents[1] / "builtin"


def load(path: str | os.PathLike, *, num_steps: int = 0) -> Model:
    """Return the model of an export, of a run folder, of "hf://user/repository[@revision]".

    path: also the name of a model that comes with this package, "digits", unless something of that
    name lies in the current folder. num_steps: denoising steps; 0: the number in the config. Raises
    UserError if no model can be read there.
    """
    num_steps = arguments.integer("num_steps", num_steps, MOST_TIMESTEPS)
    folder = _folder(arguments.path("path", path))
    with foreign.reading(folder, "export"):
        # The folder of checkpoints tells a run from an export, which has none.
        is_run = RunFolder(folder).checkpoints.exists()
    model = from_run(folder, report=print) if is_run else export_format.read(folder)
    return model.in_steps(num_steps)


def built_in() -> list[str]:
    """Return the names of the models that come with this package."""
    return sorted(folder.name for folder in BUILT_IN.iterdir() if (folder / "config.json").exists())


def _folder(text: str) -> epath.Path:
    """Return the folder of the model that a person named. Raises UserError if there is none."""
    if text.startswith(hub.SCHEME):
        return hub.fetch(text)
    folder = user_path(text, "the model's folder")
    with foreign.reading(folder, "export"):
        if folder.exists():
            return folder
    known = built_in()
    if text in known:
        return BUILT_IN / text
    raise UserError(
        f"there is no export at {shown(folder, 300)}, and no run; built-in models: "
        f"{', '.join(known)}"
    )


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
    with whole_install("a run folder"):
        from ddgan_jax import checkpoint
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
    from ddgan_jax import checkpoint

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
    lines = [line for line in run.read_metrics(report=report) if line.step <= step]
    metrics: dict[str, Any] = {}
    if lines:
        line = lines[-1]
        metrics = {"source": f"{METRICS} of the run", "step": line.step, **line.metrics}
        # The speed is a property of the machine, and not of the model.
        metrics.pop(SPEED, None)
        # Scores are made more seldom than lines: the last ones are as much as is known.
        for scored in reversed(lines):
            scores = {n: v for n, v in scored.metrics.items() if n.startswith(SCORES)}
            if scores:
                metrics |= scores | {"scored_at": scored.step}
                break
    return {"provenance": provenance, "licence": origin.licence, "metrics": metrics}
