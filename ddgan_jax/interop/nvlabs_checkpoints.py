"""Checkpoints of the DDGAN code: a generator becomes an export, a whole run a run folder.

    netG_<epoch>.pth   the generator's state dict, the moving average if there is one
    content.pth        {epoch, global_step, args, netG_dict, netD_dict, optimizerG, optimizerD,
                        schedulerG, schedulerD}, written between two epochs

In the second netG_dict holds the raw parameters. The moving average lies beside Adam's moments in
optimizerG["state"][i], where i counts the entries of netG_dict; a parameter that never had a
gradient has no entry. The learning rates follow a cosine over epochs, here over their steps.
"""

import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import build
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
from ddgan_jax.interop import nvlabs, options, pytorch_files, state_dicts
from ddgan_jax.interop.state_dicts import StateDict
from ddgan_jax.state import DiscriminatorState, GeneratorState, Params, PyTree, TrainState

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

    args: a name of PUBLISHED or a JSON file with official options; content.pth has its own. data:
    the set that a run goes on with, "" the official one. Raises UserError if something is missing
    or does not fit, or `out` exists; BusyError if another process is writing it.
    """
    source, place = user_path(checkpoint, "checkpoint"), user_path(out, "out")
    given = read_args(args) if args else None
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
        content = pytorch_files.load(content, source)
        if not isinstance(content, dict) or not content:
            raise UserError(f"{shown(source, 300)} is neither a netG_*.pth nor a content.pth")
        with _named(source):
            if "netG_dict" in content:
                _import_run(content, given, about, run_folder_path(place, "out"), data)
            else:
                _import_generator(content, given, about, place, data, source.name)


def _import_run(
    content: Mapping[str, Any], given: Any, about: Mapping, out: epath.Path, data: str
) -> None:
    config = config_of_content(content, given)
    config.data.name = data or config.data.name
    if not config.data.name:
        raise UserError(
            "the checkpoint names no known data set: give the one to go on with, `data`"
        )
    validate(config, resumed=True)
    state = import_content(content, config)
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
    kind = "ema" if nvlabs.read_options(given)["use_ema"] else "raw"
    model = Model(config, params, _step_of_file(name, config), kind, about)
    with whole_folder(out) as folder:
        export.fill(model, folder)
    if model.why_not_drawable:
        print(f"{shown(out, 300)}; no image can be drawn from it: {model.why_not_drawable}")
        return
    place = shlex.quote(os.fspath(out))
    print(f"{shown(out, 300)}: draw with ddgan sample --export={place} --seeds=0-63 --out=grid.png")


@contextlib.contextmanager
def _named(source: epath.Path) -> Iterator[None]:
    """Put the checkpoint's name before what is wrong with it."""
    try:
        yield
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


def config_of_content(
    content: Mapping[str, Any], args: Mapping[str, Any] | None = None
) -> ConfigDict:
    """Return our config of a content.pth. args: official options in the place of its own.

    The length of an epoch is that of the file, whatever the data set. Raises UserError if there
    are no options, or impossible ones.
    """
    args = content.get("args") if args is None else args
    if args is None:
        raise UserError("this content.pth has no options: give `args`")
    config = nvlabs.config_from_args(args)
    given = nvlabs.read_options(args)
    epoch, step = (_entry(content, name, _COUNT) for name in ("epoch", "global_step"))
    if epoch < 1 or step % epoch:
        raise UserError(f"this content.pth lies within an epoch (step {step}, epoch {epoch})")
    interval, epochs = step // epoch, given["num_epoch"]
    if not 0 < (epochs + 1) * interval <= LARGEST:
        raise UserError(f"this content.pth has {interval} steps in an epoch, of {epochs} epochs")
    config.train.num_steps = (epochs + 1) * interval
    if not given["no_lr_decay"]:
        config.optimizer.decay_interval_steps = interval
        config.optimizer.decay_steps = epochs * interval
        config.optimizer.final_learning_rate = float(
            _entry(_group(content, "schedulerG"), "eta_min", options.number(0, 1))
        )
    nvlabs.check_config(config)
    return config


_COUNT = options.integer(0, LARGEST)


def import_content(content: Mapping[str, Any], config: ConfigDict) -> TrainState:
    """Return the state of a run after the steps of a content.pth, on the host, float32.

    Raises UserError naming what is missing, or does not fit config's networks.
    """
    step = np.int32(_entry(content, "global_step", _COUNT))
    optimizers = build.optimizers(config)

    def network(
        letter: str, read: Callable[[StateDict, ConfigDict], Params], optimizer: Any
    ) -> tuple[Params, Params, PyTree]:
        values = state_dicts.plain_arrays(_group(content, f"net{letter}_dict"), f"net{letter}_dict")
        params = weights.cast(read(values, config), "float32")
        entries = _moments(_group(content, f"optimizer{letter}"), list(values))

        def part(key: str, otherwise: Callable[[np.ndarray], np.ndarray]) -> Params:
            whole = {n: entries[n].get(key, otherwise(value)) for n, value in values.items()}
            with _named_entry(f"optimizer{letter}, {key}"):
                return weights.cast(read(whole, config), "float32")

        adam, schedule = jax.eval_shape(optimizer.init, params)
        counts = (_entry(entry, "step", _COUNT) for entry in entries.values() if entry)
        adam = adam._replace(
            count=np.int32(max(counts, default=0)),
            mu=part("exp_avg", np.zeros_like),
            nu=part("exp_avg_sq", np.zeros_like),
        )
        # Without a moving average, and for a parameter without gradients, it is the parameter.
        return params, part("ema", np.asarray), (adam, schedule._replace(count=step))

    params, ema_params, opt_state = network("G", nvlabs.import_generator, optimizers.generator)
    generator = GeneratorState(params, ema_params, opt_state)
    params, _, opt_state = network("D", nvlabs.import_discriminator, optimizers.discriminator)
    return TrainState(cast(Any, step), generator, DiscriminatorState(params, opt_state))


def _moments(optimizer: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what Adam keeps of each parameter, by name; nothing of one without gradients."""
    saved = optimizer.get("state")
    if not isinstance(saved, dict) or not all(isinstance(entry, dict) for entry in saved.values()):
        raise UserError("this content.pth is not whole: an optimizer has no state by parameter")
    unknown = [key for key in saved if key not in range(len(names))]
    if unknown:
        raise UserError(
            f"an optimizer of this content.pth has a parameter {shown(repr(unknown[0]))}, and its "
            f"network has {len(names)}"
        )
    return {name: saved.get(i, {}) for i, name in enumerate(names)}


def _entry(fields: Mapping[str, Any], name: str, reader: options.Reader) -> Any:
    """Return a number of a content.pth, also one that is a tensor."""
    value = fields.get(name)
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.item()
    return options.read({name: value}, name, reader, "content.pth,")


def _group(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = content.get(name)
    if not isinstance(group, dict):
        raise UserError(f"this content.pth is not whole: it lacks {name}")
    return group


@contextlib.contextmanager
def _named_entry(where: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _step_of_file(name: str, config: ConfigDict) -> int:
    """Return the train steps behind netG_<epoch>.pth, written after that epoch; 0: not known."""
    match = re.fullmatch(r"netG_(\d{1,9})\.pth", name, re.ASCII)
    interval = config.optimizer.decay_interval_steps if config.optimizer.decay_steps else 0
    step = (int(match[1]) + 1) * interval if match else 0
    return step if step <= LARGEST else 0
