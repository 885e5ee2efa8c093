"""Import checkpoints of the DDGAN code: a generator becomes an export, a whole run a run folder.

netG_<epoch>.pth   the generator's state dict, the moving average if there is one
content.pth        the state of a run between two epochs, see `nvlabs_runs`
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

LICENCE = "not stated; the published weights of this code are for non-commercial use only"

# The published commands, as the official parser reads them.
_ALL = {"num_channels": 3, "use_ema": True, "num_res_blocks": 2, "lr_g": 1.6e-4, "lr_d": 1e-4}
_256 = _ALL | {
    "image_size": 256,
    "num_channels_dae": 64,
    "ch_mult": (1, 1, 2, 2, 4, 4),
    "num_process_per_node": 8,
    "lazy_reg": 10,
}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "cifar10": _ALL
    | {
        "dataset": "cifar10",
        "ch_mult": (1, 2, 2, 2),
        "n_mlp": 4,
        "batch_size": 64,
        "num_process_per_node": 4,
        "num_epoch": 1800,
        "lr_d": 1.25e-4,
        "r1_gamma": 0.02,
        "lazy_reg": 15,
    },
    "lsun_church256": _256
    | {"dataset": "lsun", "batch_size": 8, "num_epoch": 500, "r1_gamma": 1.0, "ema_decay": 0.999},
    "celebahq256": _256
    | {
        "dataset": "celeba_256",
        "num_timesteps": 2,
        "batch_size": 4,
        "num_epoch": 800,
        "r1_gamma": 2.0,
        "lr_g": 2e-4,
    },
}

# A file beside the run folder's config, so that `ddgan train --config` can take it.
_CONFIG_FILE = f'''"""The config of this run, which was imported; {CONFIG} has its fields."""

from pathlib import Path

from ddgan_jax.config.files import from_json


def get_config():
    return from_json((Path(__file__).parent / "{CONFIG}").read_text())
'''


def import_command(
    checkpoint: str, out: str, *, args: str = "", data: str = "", licence: str = ""
) -> None:
    """Write the export or the run folder `out` of a checkpoint of the DDGAN code.

    args: A name of PUBLISHED or a JSON file with official options; content.pth has its own. data:
    The data set with which the run resumes, "" for the official one. licence: Of the weights, for
    the model card. Raises UserError if something is missing or does not fit, or if `out` exists;
    BusyError if another process is writing it.
    """
    source, place = user_path(checkpoint, "checkpoint"), user_path(out, "out")
    # A mistake in the options shows before a large file is read.
    given = read_args(args) if args else None
    # The lock is taken before the file is read, which may take minutes.
    with locks.only_writer(place):
        content = foreign.read_bytes(source, pytorch_files.WHAT)
        about = {
            "provenance": {
                "imported_from": f"{source.name} of NVlabs/denoising-diffusion-gan",
                "sha256": hashlib.sha256(content).hexdigest(),
            },
            "licence": licence or LICENCE,
            "metrics": {},
        }
        # The checksum is that of the bytes as they came, before anything is made of them.
        content = pytorch_files.load(content, source)
        if not isinstance(content, dict) or not content:
            raise UserError(f"{shown(source, 300)} is neither a netG_*.pth nor a content.pth")
        with _named(source):
            # A whole run names its parts; a generator's file is the state dict itself.
            if "netG_dict" in content:
                _import_run(content, given, about, run_folder_path(place, "out"), data)
            else:
                _import_generator(content, given, about, place, data, source.name)


def _import_run(
    content: Mapping[str, Any], given: Any, about: Mapping, out: epath.Path, data: str
) -> None:
    config = nvlabs_runs.config_of_content(content, given)
    config.data.name = data or config.data.name
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
    content: Mapping[str, Any], given: Any, about: Mapping, out: epath.Path, data: str, name: str
) -> None:
    if given is None:
        raise UserError(f"`args` is missing: {', '.join(PUBLISHED)}, or a JSON file of options")
    config = nvlabs.config_from_args(given)
    nvlabs.check_config(config)
    config.data.name = data or config.data.name
    params = weights.cast(nvlabs.import_generator(content, config), "float32")
    # The official code writes the moving average into netG_*.pth if it keeps one.
    kind = "ema" if nvlabs.read_options(given)["use_ema"] else "raw"
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


def read_args(name: str) -> dict[str, Any]:
    """Return the official options of this name. Raises UserError if there are none."""
    if name in PUBLISHED:
        return dict(PUBLISHED[name])
    if not name.endswith(".json"):
        nearest = did_you_mean(name, PUBLISHED) or f"; known: {', '.join(PUBLISHED)}"
        raise UserError(f"`args={shown(name)}` is neither published nor a .json file{nearest}")
    return foreign.read_json(user_path(name, "args"))


def _step_of_file(name: str, config: ConfigDict) -> int:
    """Return the number of train steps behind netG_<epoch>.pth, 0 if the name does not say it."""
    match = re.fullmatch(r"netG_(\d{1,9})\.pth", name, re.ASCII)
    interval = config.optimizer.decay_interval_steps if config.optimizer.decay_steps else 0
    # The file of epoch 0 is written after that epoch.
    step = (int(match[1]) + 1) * interval if match else 0
    return step if step <= LARGEST else 0
