"""Checkpoints of the DDGAN code: a generator becomes an export, a whole run a run folder.

    netG_<epoch>.pth   the generator's state dict, the moving average if there is one
    content.pth        {epoch, global_step, args, netG_dict, netD_dict, optimizerG, optimizerD,
                        schedulerG, schedulerD}, written between two epochs

In the second netG_dict holds the raw parameters. The moving average lies beside Adam's moments in
optimizerG["state"][i], where i counts the entries of netG_dict; a parameter that never had a
gradient has no entry. The learning rates follow a cosine over epochs, here over their steps.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import export, report, train_step
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config_files import did_you_mean
from ddgan_jax.errors import UserError
from ddgan_jax.interop import nvlabs, pytorch_files
from ddgan_jax.interop.nvlabs import StateDict
from ddgan_jax.model import Model
from ddgan_jax.run_logs import ORIGIN
from ddgan_jax.types import DiscriminatorState, GeneratorState, Params, PyTree, TrainState
from ddgan_jax.validation import check_model, validate

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

# Beside a run folder's config.json, so that `ddgan train --config` can take it.
_CONFIG_FILE = '''"""The config of this run, which was imported; config.json has its fields."""

from pathlib import Path

from ddgan_jax.config_files import from_json


def get_config():
    return from_json((Path(__file__).parent / "config.json").read_text())
'''


def import_command(
    checkpoint: str, out: str, *, args: str = "", data: str = "", licence: str = ""
) -> None:
    """Writes the export or the run folder `out` of a checkpoint of the DDGAN code.

    args: a name of PUBLISHED or a JSON file with official options; content.pth has its own. data:
    the set that a run goes on with, "" the official one. Raises UserError if something is missing
    or does not fit, or `out` exists.
    """
    content = pytorch_files.read(checkpoint)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{checkpoint} is neither a netG_*.pth nor a content.pth")
    given = read_args(args) if args else None
    about = {
        "provenance": {
            "imported_from": f"{epath.Path(checkpoint).name} of NVlabs/denoising-diffusion-gan",
            "sha256": hashlib.sha256(epath.Path(checkpoint).read_bytes()).hexdigest(),
        },
        "licence": licence or LICENCE,
        "metrics": {},
    }
    if "netG_dict" in content:
        config = config_of_content(content, given)
        config.data.name = data or config.data.name
        state = import_content(content, config)
        _write_run(config, state, about, out)
        print(
            f"step {int(state.step)} in {out}; go on with: "
            f"ddgan train --config={out}/config.py --workdir={out}"
        )
        return
    if given is None:
        raise UserError(f"--args is missing: {', '.join(PUBLISHED)}, or a JSON file of options")
    config = nvlabs.config_from_args(given)
    config.data.name = data or config.data.name
    check_model(config)
    params = nvlabs.import_generator(content, config)
    kind = "ema" if given.get("use_ema") else "raw"
    export.write(Model(config, params, _step_of_file(checkpoint, config), kind, about), out)
    print(f"{out}: draw with ddgan sample --export={out} --seeds=0-63 --out=grid.png")


def read_args(name: str) -> dict[str, Any]:
    """The official options that --args names. Raises UserError if it names none."""
    if name in PUBLISHED:
        return dict(PUBLISHED[name])
    path = epath.Path(name)
    if path.suffix != ".json":
        nearest = did_you_mean(name, PUBLISHED) or f"; known: {', '.join(PUBLISHED)}"
        raise UserError(f"--args={name} is neither published nor a .json file{nearest}")
    try:
        args = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read --args={name}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"--args={name} is not JSON ({error})") from error
    if not isinstance(args, dict):
        raise UserError(f"--args={name} is not a JSON object of options")
    return args


def config_of_content(
    content: Mapping[str, Any], args: Mapping[str, Any] | None = None
) -> ConfigDict:
    """Our config of a content.pth. args: official options in the place of its own.

    The length of an epoch is that of the file, whatever the data set. Raises UserError if there
    are no options, or impossible ones.
    """
    args = content.get("args") if args is None else args
    if args is None:
        raise UserError("this content.pth has no options: give --args")
    config = nvlabs.config_from_args(args)
    epoch, step = int(content["epoch"]), int(content["global_step"])
    if epoch < 1 or step % epoch:
        raise UserError(f"this content.pth lies within an epoch (step {step}, epoch {epoch})")
    interval, epochs = step // epoch, dict(args).get("num_epoch", 1200)
    config.train.num_steps = (epochs + 1) * interval
    if not dict(args).get("no_lr_decay"):
        config.optimizer.decay_interval_steps = interval
        config.optimizer.decay_steps = epochs * interval
        config.optimizer.final_learning_rate = float(content["schedulerG"]["eta_min"])
    return config


def import_content(content: Mapping[str, Any], config: ConfigDict) -> TrainState:
    """The state of a run after the steps of a content.pth, on the host.

    Raises UserError naming what is missing, or does not fit config's networks.
    """
    missing = [
        key for key in ("netG_dict", "netD_dict", "optimizerG", "optimizerD") if key not in content
    ]
    if missing:
        raise UserError(f"this content.pth is not whole: it lacks {', '.join(missing)}")
    step = np.int32(content["global_step"])
    optimizers = train_step.make_optimizers(config)

    def network(
        letter: str, read: Callable[[StateDict, ConfigDict], Params], optimizer: Any
    ) -> tuple[Params, Params, PyTree]:
        values, saved = content[f"net{letter}_dict"], content[f"optimizer{letter}"]["state"]
        entries = {name: saved.get(i, {}) for i, name in enumerate(values)}

        def part(key: str, otherwise: Callable[[np.ndarray], np.ndarray]) -> Params:
            whole = {n: entries[n].get(key, otherwise(value)) for n, value in values.items()}
            return read(whole, config)

        params = read(values, config)
        adam, schedule = jax.eval_shape(optimizer.init, params)
        count = max((int(entry["step"]) for entry in entries.values() if entry), default=0)
        adam = adam._replace(
            count=np.int32(count),
            mu=part("exp_avg", np.zeros_like),
            nu=part("exp_avg_sq", np.zeros_like),
        )
        # Without a moving average, and for a parameter without gradients, it is the parameter.
        return params, part("ema", np.asarray), (adam, schedule._replace(count=step))

    params, ema_params, opt_state = network("G", nvlabs.import_generator, optimizers.generator)
    generator = GeneratorState(params, ema_params, opt_state)
    params, _, opt_state = network("D", nvlabs.import_discriminator, optimizers.discriminator)
    return TrainState(step, generator, DiscriminatorState(params, opt_state))


def _write_run(
    config: ConfigDict, state: TrainState, about: Mapping, out: str | os.PathLike
) -> None:
    """A run folder with one checkpoint, as if `ddgan train` had stopped there."""
    if not config.data.name:
        raise UserError(
            "the checkpoint names no known data set: give the one to go on with, --data"
        )
    validate(config, resumed=True)
    with export.whole_folder(out) as folder:
        report.write_config(folder, config)
        (folder / "config.py").write_text(_CONFIG_FILE)
        (folder / ORIGIN).write_text(json.dumps(about, indent=2) + "\n")
        with Checkpoints(folder / "checkpoints", keep_latest=1, keep_every_steps=0) as checkpoints:
            checkpoints.save(int(state.step), state, config.to_dict())


def _step_of_file(path: str, config: ConfigDict) -> int:
    """Train steps behind netG_<epoch>.pth, which is written after that epoch; 0: not known."""
    match = re.fullmatch(r"netG_(\d+)\.pth", epath.Path(path).name)
    interval = config.optimizer.decay_interval_steps if config.optimizer.decay_steps else 0
    return (int(match[1]) + 1) * interval if match else 0
