"""Import checkpoints of a published program: a generator becomes an export, a run a run folder.

netG_<epoch>.pth   the generator's state dict, the moving average if there is one
content.pth        the state of a run between two epochs, see `nvlabs_runs`

The programs are DDGAN's and WaveDiff's, see `nvlabs_programs`.
"""

import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config import LARGEST, run_config
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import BusyError, UserError, did_you_mean, shown
from ddgan_jax.files import foreign, locks
from ddgan_jax.files.atomic import whole_folder
from ddgan_jax.files.paths import run_folder_path, user_path
from ddgan_jax.files.run_folder import CONFIG, RunFolder
from ddgan_jax.inference import export, weights
from ddgan_jax.inference.model import Model
from ddgan_jax.interop import nvlabs, nvlabs_runs, pytorch_files
from ddgan_jax.interop.nvlabs_programs import DDGAN, Program

# A file beside the run folder's config, so that `ddgan train --config` can take it.
_CONFIG_FILE = f'''"""The config of this run, which was imported; {CONFIG} has its fields."""

from pathlib import Path

from ddgan_jax.config.files import from_json


def get_config():
    return from_json((Path(__file__).parent / "{CONFIG}").read_text())
'''


def import_command(
    checkpoint: str,
    out: str,
    *,
    program: Program = DDGAN,
    args: str = "",
    data: str = "",
    licence: str = "",
) -> None:
    """Write the export or the run folder `out` of a checkpoint of a program.

    args: A name of the program's published runs or a JSON file with official options; content.pth
    has its own. data: The data set with which the run resumes, "" for the official one. licence: Of
    the weights, for the model card. Raises UserError if something is missing or does not fit, or if
    `out` exists; BusyError if another process is writing it.
    """
    source, place = user_path(checkpoint, "checkpoint"), user_path(out, "out")
    # A mistake in the options shows before a large file is read.
    given = read_args(args, program) if args else None
    # The lock is taken before the file is read, which may take minutes.
    with locks.only_writer(place):
        content = foreign.read_bytes(source, pytorch_files.WHAT)
        about = {
            "provenance": {
                "imported_from": f"{source.name} of {program.repository}",
                "sha256": hashlib.sha256(content).hexdigest(),
            },
            "licence": licence or program.licence,
            "metrics": {},
        }
        # The checksum is that of the bytes as they came, before anything is made of them.
        content = pytorch_files.load(content, source)
        if not isinstance(content, dict) or not content:
            raise UserError(f"{shown(source, 300)} is neither a netG_*.pth nor a content.pth")
        with _named(source):
            # A whole run names its parts; a generator's file is the state dict itself.
            if "netG_dict" in content:
                _import_run(program, content, given, about, run_folder_path(place, "out"), data)
            else:
                _import_generator(program, content, given, about, place, data, source.name)


def _import_run(
    program: Program,
    content: Mapping[str, Any],
    given: Any,
    about: Mapping,
    out: epath.Path,
    data: str,
) -> None:
    config = nvlabs_runs.config_of_content(content, given, program)
    _set_data(config, data)
    if not config.data.name:
        raise UserError(
            "the checkpoint names no known data set: give the one to go on with, `data`"
        )
    # Before the folder is written: a run that `ddgan train` would refuse helps nobody.
    validate(config, resumed=True)
    state = nvlabs_runs.import_content(content, config)
    # The folder appears under its name when all is written: half a run folder would be resumed.
    with whole_folder(out) as path:
        folder = RunFolder(path)
        run_config.write_config(folder, config)
        (path / "config.py").write_text(_CONFIG_FILE)
        folder.write_origin(about)
        with Checkpoints(folder.checkpoints, keep_latest=1, keep_every_steps=0) as checkpoints:
            checkpoints.save(int(state.step), state, config.to_dict())
    place = shlex.quote(os.fspath(out))
    print(
        f"step {int(state.step)} in {shown(out, 300)}; go on with: "
        f"ddgan train --config={place}/config.py --workdir={place}"
    )


def _import_generator(
    program: Program,
    content: Mapping[str, Any],
    given: Any,
    about: Mapping,
    out: epath.Path,
    data: str,
    name: str,
) -> None:
    if given is None:
        known = ", ".join(program.published)
        raise UserError(f"`args` is missing: {known}, or a JSON file of options")
    config = program.config_from_args(given)
    program.check_config(config)
    _set_data(config, data)
    params = weights.cast(nvlabs.import_generator(content, config), "float32")
    # The official code writes the moving average into netG_*.pth if it keeps one.
    kind = "ema" if program.read_options(given)["use_ema"] else "raw"
    model = Model(config, params, _step_of_file(name, config), kind, about)
    with whole_folder(out) as folder:
        export.fill(model, folder)
    # Such a network is exported all the same, without a sampler and without pictures.
    if model.why_not_drawable:
        print(f"{shown(out, 300)}; no image can be drawn from it: {model.why_not_drawable}")
        return
    place = shlex.quote(os.fspath(out))
    print(f"{shown(out, 300)}: draw with ddgan sample --export={place} --seeds=0-63 --out=grid.png")


@contextlib.contextmanager
def _named(source: epath.Path) -> Iterator[None]:
    """Name the checkpoint at the start of messages about it."""
    try:
        yield
    # A place that another process holds is no fault of the checkpoint.
    except BusyError:
        raise
    except UserError as error:
        raise UserError(f"{shown(source.name)}: {error}") from error


def _set_data(config: ConfigDict, data: str) -> None:
    """Set the data set of a config to this one in the place of the official one, "" to keep it."""
    if data and data != config.data.name:
        # The split is that of the official set, and others may have none of its name.
        config.data.name, config.data.split = data, "train"


def read_args(name: str, program: Program = DDGAN) -> dict[str, Any]:
    """Return the official options of this name. Raises UserError if there are none."""
    published = program.published
    if name in published:
        return dict(published[name])
    if not name.endswith(".json"):
        nearest = did_you_mean(name, published) or f"; known: {', '.join(published)}"
        raise UserError(f"`args={shown(name)}` is neither published nor a .json file{nearest}")
    given = foreign.read_json(user_path(name, "args"))
    for option in program.must_be_given:
        if option not in given:
            # A strange file may have any number of names, and official programs have a hundred.
            nearest = did_you_mean(option, list(given)[:500])
            raise UserError(
                f"{shown(name, 300)} lacks official option {option}, which neither a default nor "
                f"the weights can tell{nearest}"
            )
    return given


def _step_of_file(name: str, config: ConfigDict) -> int:
    """Return the number of train steps behind netG_<epoch>.pth, 0 if the name does not say it."""
    match = re.fullmatch(r"netG_(\d{1,9})\.pth", name, re.ASCII)
    interval = config.optimizer.decay_interval_steps if config.optimizer.decay_steps else 0
    # The file of epoch 0 is written after that epoch.
    step = (int(match[1]) + 1) * interval if match else 0
    return step if step <= LARGEST else 0
