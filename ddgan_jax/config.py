"""Every setting of a run: its default and its unit; config files and JSON.

`base_config` defines each field once; a file in configs/ changes what its experiment needs, the
command line changes single fields (`--config.train.batch_size=64`). `validation.validate`
refuses settings that cannot work before anything is compiled. The resolved config is written to
the run folder and travels in every checkpoint.
"""

import difflib
import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from ddgan_jax.errors import UserError

ConfigDict = ml_collections.ConfigDict


def base_config() -> ConfigDict:
    """All fields with their defaults: DDGAN's published CIFAR-10 networks, no data set chosen."""
    c = ConfigDict()

    c.data = ConfigDict()
    c.data.name = ""  # "cifar10" or any other name in TFDS, "digits", "stacked_mnist" or "folder"
    c.data.split = "train"  # split or slice in TFDS syntax, e.g. "train[:90%]"
    c.data.dir = ""  # where prepared sets lie; "" = $TFDS_DATA_DIR, else ~/tensorflow_datasets
    c.data.path = ""  # the images of data.name = "folder": PNG/JPEG files, one sub-folder per class
    c.data.image_size = 32  # pixels; larger images are resized (shorter side) and centre-cropped
    c.data.channels = 3  # 1 gray, 3 RGB
    c.data.max_examples = 0  # use only the first so many examples; 0 = all
    c.data.flip = True  # mirror each image with probability 1/2, inside the train step
    c.data.memory_limit_mib = 4096  # sets that fit are decoded once into RAM, others while training
    c.data.decode_threads = 8  # threads that read and decode a set that is not in RAM

    c.diffusion = ConfigDict()
    c.diffusion.schedule = "vp"  # "vp" or "geometric" (which needs 0 < beta_min < beta_max < 1)
    c.diffusion.num_timesteps = 4  # T, denoising steps
    c.diffusion.beta_min = 0.1
    c.diffusion.beta_max = 20.0

    c.objective = ConfigDict()
    c.objective.name = "ddgan"  # which losses
    c.objective.prediction = "x_0"  # the generator's output: "x_0", "x_t" (direct) or "noise"
    c.objective.augmentation_timesteps = (
        0  # > 0, T = 1: diffuse D's inputs to one of so many levels
    )
    c.objective.r1_gamma = 0.02  # weight of R1 (times 1/2), not scaled by the interval
    c.objective.r1_interval = 15  # steps between R1 penalties; 1 = every step

    c.generator = ConfigDict()
    c.generator.name = "ncsnpp"
    c.generator.base_channels = 128  # channels at full resolution
    c.generator.channel_multipliers = (1, 2, 2, 2)  # one level per entry, each half the resolution
    c.generator.num_res_blocks = 2  # per level
    c.generator.attention_resolutions = (16,)  # pixels
    c.generator.dropout = 0.0  # probability
    c.generator.resblock = "biggan"  # "ddpm", "biggan" or "biggan_oneadagn"
    c.generator.progressive = "none"  # output pyramid: "none", "output_skip" or "residual"
    c.generator.progressive_input = "residual"  # input pyramid: "none", "input_skip" or "residual"
    c.generator.progressive_combine = "sum"  # how input_skip joins: "sum" or "cat"
    c.generator.resample_with_conv = True  # in the down- and up-sampling of resblock "ddpm"
    c.generator.fir = True  # FIR filter when resampling; False: 2x2 mean and nearest neighbour
    c.generator.fir_kernel = (1.0, 3.0, 3.0, 1.0)  # taps, normalised to sum 1
    c.generator.skip_rescale = True  # divide residual sums by sqrt(2)
    c.generator.time_embedding = "positional"  # or "fourier", of log(t): undefined at t = 0
    c.generator.fourier_scale = 16.0  # standard deviation of the fourier frequencies
    c.generator.time_conditional = True  # False: the network does not see t
    c.generator.centered = True  # False: inputs lie in [0, 1] and are mapped to [-1, 1] first
    c.generator.output_tanh = True
    c.generator.latent = "normal"  # "normal" or "none" (z = 0: a unimodal denoising distribution)
    c.generator.latent_dim = 100  # entries of z
    c.generator.latent_embedding_dim = 256  # width of the latent mapping
    c.generator.latent_layers = 3  # hidden layers of the latent mapping after its first

    c.discriminator = ConfigDict()
    c.discriminator.name = "small"  # "small" (from 8 pixels) or "large" (from 64 pixels)
    c.discriminator.base_channels = 64
    c.discriminator.time_embedding_dim = 256

    c.optimizer = ConfigDict()
    c.optimizer.generator_learning_rate = 1.6e-4
    c.optimizer.discriminator_learning_rate = 1.25e-4
    c.optimizer.beta1 = 0.5
    c.optimizer.beta2 = 0.9
    c.optimizer.decay_steps = 0  # of the cosine from the rates above to the final one; 0 = constant
    c.optimizer.decay_interval_steps = 1  # the cosine is a staircase with treads of so many steps
    c.optimizer.final_learning_rate = 1e-5
    c.optimizer.ema_decay = 0.9999  # per step, of the generator's parameters

    c.train = ConfigDict()
    c.train.batch_size = 256  # images per step, over all devices
    c.train.num_steps = 400_000  # train steps
    c.train.seed = 0  # of everything: initial parameters, data order, noise
    c.train.compute_dtype = "float32"  # of activations: "float32" or "bfloat16"
    c.train.mapping = "pmap"  # how the step is mapped over devices: "pmap" or "shard_map"

    c.log = ConfigDict()
    c.log.every_steps = 100  # steps between lines of metrics
    c.log.samples_every_steps = 5_000  # steps between grids of samples
    c.log.num_samples = 64  # images in a grid, always of the seeds 0, 1, 2, ...

    c.checkpoint = ConfigDict()
    c.checkpoint.save_every_steps = 5_000
    c.checkpoint.keep_latest = 2  # newest checkpoints kept
    c.checkpoint.keep_every_steps = 0  # also keep those at multiples of this; 0 = none

    c.sampling = ConfigDict()
    c.sampling.chunk_size = 64  # images per device in one call of the compiled sampler

    return c


def load_config(path: str) -> ConfigDict:
    """The config that a Python file's `get_config` returns, locked against new fields.

    path: "configs/x.py", or "configs/x.py:argument" for `get_config("argument")`.
    Raises UserError if there is no such file, or if it does not yield a ConfigDict.
    """
    file, has_argument, argument = path.partition(":")
    try:
        source = Path(file).read_bytes()
    except OSError as error:
        known = sorted(str(p) for p in Path(file).parent.glob("*.py"))
        message = f"config file {file} cannot be read ({error.strerror})"
        raise UserError(message + did_you_mean(file, known)) from error
    try:
        namespace = {"__name__": "config", "__file__": file}
        exec(compile(source, file, "exec"), namespace)
        config = namespace["get_config"](*([argument] if has_argument else []))
    except UserError:
        raise
    except Exception as error:  # whatever a user's own file raises is for the user to read
        raise UserError(f"config file {file}: {_describe(error, file)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config file {file}: get_config must return a ConfigDict")
    return config.lock()


def apply_variant(
    config: ConfigDict, argument: str, variants: Mapping[str, Callable[[ConfigDict], None]]
) -> ConfigDict:
    """The config, changed in place by the variant that the argument of a config file names.

    "" is the config itself. Raises UserError for a name that is not among `variants`.
    """
    if argument:
        if argument not in variants:
            message = f"config argument {argument!r} is not known"
            message += did_you_mean(argument, variants) or f"; known: {', '.join(variants)}"
            raise UserError(message)
        variants[argument](config)
    return config


def tiny(config: ConfigDict) -> None:
    """Shrink, in place, to two train steps in seconds on a CPU; kinds of networks are kept."""
    size = 64 if config.discriminator.name == "large" else min(config.data.image_size, 32)
    config.data.image_size = size
    config.generator.base_channels = 8
    config.generator.channel_multipliers = (1, 2)
    config.generator.num_res_blocks = 1
    config.generator.attention_resolutions = (size // 2,)
    config.generator.latent_dim = 8
    config.generator.latent_embedding_dim = 16
    config.generator.latent_layers = 1
    config.discriminator.base_channels = 4
    config.discriminator.time_embedding_dim = 16
    config.train.batch_size = 8
    config.train.num_steps = 2
    config.optimizer.decay_steps = min(config.optimizer.decay_steps, 2)
    config.optimizer.decay_interval_steps = 1
    config.log.every_steps = 1
    config.log.samples_every_steps = 2
    config.log.num_samples = 4
    config.checkpoint.save_every_steps = 2
    config.sampling.chunk_size = 4


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON with sorted keys; `from_json` is its inverse."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The locked config that `to_json` wrote. Raises UserError if it is not one."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"this is not a config in JSON ({error})") from error
    if not isinstance(tree, dict):
        raise UserError("this is not a config in JSON (it has no fields)")
    return from_dict(tree)


def from_dict(tree: Mapping[str, Any]) -> ConfigDict:
    """The locked config of a tree that JSON gave back, whose sequences are lists."""
    return ConfigDict(_lists_to_tuples(tree)).lock()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message that names the nearest known word; "" if none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields as (full name, value), such as ("train.batch_size", 256)."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _lists_to_tuples(tree: Any) -> Any:
    # JSON knows one kind of sequence, configs use the other.
    if isinstance(tree, dict):
        return {key: _lists_to_tuples(value) for key, value in tree.items()}
    return tuple(map(_lists_to_tuples, tree)) if isinstance(tree, list) else tree


def _describe(error: Exception, file: str) -> str:
    if isinstance(error, KeyError) and error.args == ("get_config",):
        return "it does not define get_config"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"
