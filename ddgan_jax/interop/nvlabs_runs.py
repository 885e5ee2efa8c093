"""Convert the state of a whole training run of DDGAN's or WaveDiff's code, from its content.pth.

The file holds {epoch, global_step, args, netG_dict, netD_dict, optimizerG, optimizerD, schedulerG,
schedulerD}. netG_dict has the raw parameters. The moving average lies beside Adam's moments in
optimizerG["state"][i], where i counts the entries of netG_dict; a parameter that never had a
gradient has no entry. The learning rates follow a cosine over epochs, here over their steps.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import build
from ddgan_jax.config import LARGEST
from ddgan_jax.errors import UserError, shown
from ddgan_jax.inference import weights
from ddgan_jax.interop import nvlabs, options, state_dicts
from ddgan_jax.interop.nvlabs_programs import DDGAN, Program
from ddgan_jax.interop.state_dicts import StateDict
from ddgan_jax.state import DiscriminatorState, GeneratorState, Params, PyTree, TrainState


def config_of_content(
    content: Mapping[str, Any], args: Mapping[str, Any] | None = None, program: Program = DDGAN
) -> ConfigDict:
    """Return our config of a content.pth of a program.

    args: Official options in the place of the file's own. Raises UserError if there are no options,
    or impossible ones.
    """
    args = content.get("args") if args is None else args
    if args is None:
        raise UserError("this content.pth has no options: give `args`")
    config = program.config_from_args(args)
    given = program.read_options(args)
    epoch, step = (_entry(content, name, _COUNT) for name in ("epoch", "global_step"))
    # Only a file from the end of an epoch tells how many steps an epoch has.
    if epoch < 1 or step % epoch:
        raise UserError(f"this content.pth lies within an epoch (step {step}, epoch {epoch})")
    # The official learning rates follow epochs, whose length only the file knows: the data set may
    # have been another one, and the number of processes too.
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
    program.check_config(config)
    return config


_COUNT = options.integer(0, LARGEST)


def import_content(content: Mapping[str, Any], config: ConfigDict) -> TrainState:
    """Return the state of a run after the steps of a content.pth, on the host, float32.

    Raises UserError that names the entries that are missing, or that do not fit the networks.
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
            # A parameter without an entry never had a gradient, and its moments are still what they
            # began with.
            whole = {n: entries[n].get(key, otherwise(value)) for n, value in values.items()}
            with _named_entry(f"optimizer{letter}, {key}"):
                return weights.cast(read(whole, config), "float32")

        # The official optimiser counts its own steps, and the learning rate those of the run.
        adam, schedule = jax.eval_shape(optimizer.init, params)
        # PyTorch counts the updates of each parameter, and all counts are equal.
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
    """Return the moments of Adam by name of the parameter, {} for one without gradients."""
    saved = optimizer.get("state")
    if not isinstance(saved, dict) or not all(isinstance(entry, dict) for entry in saved.values()):
        raise UserError("this content.pth is not whole: an optimizer has no state by parameter")
    # A moment of an unknown parameter would mean that the counting differs, and all are wrong.
    unknown = [key for key in saved if key not in range(len(names))]
    if unknown:
        raise UserError(
            f"an optimizer of this content.pth has a parameter {shown(repr(unknown[0]))}, and its "
            f"network has {len(names)}"
        )
    # PyTorch numbers the parameters in the order of the state dict.
    return {name: saved.get(i, {}) for i, name in enumerate(names)}


def _entry(fields: Mapping[str, Any], name: str, reader: options.Reader) -> Any:
    """Return a number of a content.pth, which may be a tensor without axes."""
    value = fields.get(name)
    if isinstance(value, np.ndarray) and value.shape == ():
        # Newer versions of PyTorch keep Adam's step as a tensor.
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
