"""Declare the fields of every config, each once, with the defaults of DDGAN on 32-pixel images.

A file in configs/ begins with `base_config` (or `variants.siddm_config`) and changes what its
experiment needs; the command line changes single fields (`--config.train.batch_size=64`). The
resolved config is written to the run folder and travels in every checkpoint. The networks' own
fields are in `networks`, those of what a run reports, keeps and scores in `observation`.
"""

from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config.networks import NETWORKS
from ddgan_jax.config.observation import CHECKPOINT, EVAL, LOG
from ddgan_jax.config.schema import (
    LARGEST_IMAGE,
    MOST_CLASSES,
    MOST_IMAGES,
    MOST_TIMESTEPS,
    Field,
    Section,
    changeable,
    make,
    not_negative,
    paths,
    positive,
)

# Toy sets of points in the plane, as images of one pixel and two channels; `data.mixture` makes
# them.
POINT_SETS = ("mog25", "mog25_scaled")
# Sets of three digits as the colours of an image, whose modes are counted; `data.stacks` makes
# them.
STACKED_SETS = ("stacked_mnist", "stacked_digits")


def _below_one(default: float, sentence: str) -> Field:
    return Field(default, sentence, at_least=0, below=1)


_DATA = {
    "name": Field(
        "",
        'Name of the data set: "cifar10" or any other in TFDS, "digits", "folder" with data.path, '
        f"stacks of three digits: {', '.join(STACKED_SETS)}, or points: {', '.join(POINT_SETS)}.",
    ),
    "split": Field(
        "train",
        'Split or slice in the syntax of TFDS, such as "train[:90%]"; "train:holdout" is the part '
        "that data.holdout leaves out.",
    ),
    # A prepared data set may lie elsewhere on the machine where a run resumes; its content is
    # compared with that of the run's beginning.
    "dir": Field(
        "",
        "Folder of prepared sets; empty takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.",
        may_change=True,
        is_local_path=True,
    ),
    "path": Field(
        "",
        'Folder or .zip of the images of data.name = "folder", with a sub-folder per class.',
        is_local_path=True,
    ),
    "image_size": positive(
        32,
        "Width and height of the images: the shorter side of larger ones is resized to it, and "
        "the middle is cut out.",
        "pixels",
        at_most=LARGEST_IMAGE,
    ),
    "channels": Field(3, "1 for gray images, 3 for RGB, 2 for points, which have one pixel."),
    "num_classes": not_negative(
        0,
        "Number of classes that the networks are told; 0 trains them without classes.",
        "classes",
        at_most=MOST_CLASSES,
    ),
    "resize": Field(
        "refuse",
        'What becomes of images smaller than image_size: "refuse" ends with an error, "up" '
        'enlarges them, "pad" puts black around them, "skip" leaves them out.',
        choices=("refuse", "up", "pad", "skip"),
    ),
    "max_examples": not_negative(0, "Use only the first so many examples; 0 uses all.", "examples"),
    "holdout": not_negative(
        0.0,
        "Share of the examples, below 1, or their number, that no training sees and that an "
        'evaluation reads as the split "holdout".',
    ),
    "flip": Field(True, "Mirror each image with probability 1/2, inside the train step."),
    "memory_limit_mib": not_negative(
        4096,
        "Sets up to this size are decoded once into memory, larger ones while training.",
        "MiB",
        may_change=True,
    ),
    # The order of the batches does not depend on the number of threads, so that it may change.
    "decode_threads": positive(
        8,
        "Threads that read and decode a set that is not in memory.",
        "threads",
        at_most=1024,
        may_change=True,
    ),
}

_DIFFUSION = {
    "space": Field(
        "pixels",
        'What is diffused: "pixels", or "haar", the four Haar bands of an image as channels of one '
        "of half the size.",
        choices=("pixels", "haar"),
    ),
    "haar_order": Field(
        "lh_hl",
        'Order of the two middle bands: "lh_hl" begins with what changes from left to right, '
        '"hl_lh" is that of some published weights.',
        choices=("lh_hl", "hl_lh"),
        needs={"space": "haar"},
    ),
    "schedule": Field(
        "vp",
        'Noise schedule: the discrete "vp" and "geometric", the continuous "cosine" of SIDDM, or '
        '"one_shot", from pure noise in one step.',
        choices=("vp", "geometric", "cosine", "one_shot"),
    ),
    "num_timesteps": positive(
        4,
        'T, the number of denoising steps; "cosine" trains on steps of length 1 / T.',
        "steps",
        at_most=MOST_TIMESTEPS,
    ),
    "beta_min": Field(
        0.1, 'Smallest beta of the schedules "vp" (from 0 on) and "geometric" (above 0).'
    ),
    "beta_max": Field(
        20.0, 'Largest beta of the schedules "vp" and "geometric" (below 1), above beta_min.'
    ),
}

_OBJECTIVE = {
    "prediction": Field(
        "x_0",
        'Output of the generator: "x_0", "x_t" (direct denoising) or "noise".',
        choices=("x_0", "x_t", "noise"),
    ),
    "judged": Field(
        "x_t", "What the discriminator judges: the denoised x_t, or x_0.", choices=("x_t", "x_0")
    ),
    "joint": Field(True, "The discriminator also sees x_{t+1}: True is DDGAN, False is SIDDM."),
    "discriminator_time": Field(
        "t+1",
        "Time that the discriminator is told with a continuous schedule.",
        choices=("t", "t+1"),
    ),
    "adversarial_weight": not_negative(
        1.0, "Weight of the adversarial term in the generator's loss; 0 leaves AFD alone."
    ),
    "afd_weight": not_negative(
        0.0, "Weight lambda of auxiliary forward diffusion (AFD); 0 trains without it."
    ),
    "afd_form": Field(
        "recon",
        'Form of AFD: "recon" pulls x_0\' to x_0; "kl", and "code" with fresh noise, pull x_t\' to '
        "x_{t+1}, and are a divergence only with afd_regression.",
        choices=("recon", "kl", "code"),
    ),
    "afd_regression": Field(
        False, "Learn the head C of the discriminator, whose error AFD subtracts."
    ),
    "afd_scaling": Field(
        "none",
        'Scaling of AFD; "likelihood" divides it by 2 beta.',
        choices=("none", "likelihood"),
    ),
    "denoising_weight": not_negative(
        0.0, "Weight of the regulariser R, by which the discriminator also denoises real images."
    ),
    "augmentation_timesteps": not_negative(
        0,
        "Levels of noise to which the inputs of the discriminator are diffused, with T = 1; 0 "
        "leaves them as they are.",
        "levels",
        at_most=MOST_TIMESTEPS,
    ),
    "reconstruction_weight": not_negative(
        0.0,
        "Weight of the mean absolute difference of x_0' and x_0 in the generator's loss; 1 is "
        "WaveDiff, 0 leaves it out.",
    ),
    "r1_gamma": not_negative(
        0.02, "Weight of the gradient penalty R1 (times 1/2), whatever the interval."
    ),
    "r1_interval": positive(15, "Steps between gradient penalties; 1 is every step.", "steps"),
}

_OPTIMIZER = {
    "generator_learning_rate": positive(1.6e-4, "Learning rate of the generator's Adam."),
    "discriminator_learning_rate": positive(1.25e-4, "Learning rate of the discriminator's Adam."),
    "beta1": _below_one(0.5, "Decay of Adam's first moment, per step."),
    "beta2": _below_one(0.9, "Decay of Adam's second moment, per step."),
    "decay_steps": not_negative(
        0,
        "Length of the cosine from the learning rates to the final one, which then stays; 0 keeps "
        "them constant.",
        "steps",
    ),
    "decay_interval_steps": positive(
        1, "The cosine is a staircase with treads of this length.", "steps"
    ),
    "final_learning_rate": positive(
        1e-5, "Learning rate of both networks after the decay.", needs={"decay_steps": True}
    ),
    "ema_decay": _below_one(
        0.9999, "Decay of the moving average of the generator's parameters, per step."
    ),
}

_TRAIN = {
    "batch_size": positive(256, "Images per step, over all devices.", "images"),
    "microbatches": positive(
        1, "Parts of a device's batch whose gradients are added up one after another.", "parts"
    ),
    "num_steps": positive(400_000, "Length of the training.", "steps", may_change=True),
    "seed": not_negative(0, "Seed of the initial parameters, the data order and the noise."),
    "compute_dtype": Field(
        "float32", "Precision of the activations.", choices=("float32", "bfloat16")
    ),
    "matmul_precision": Field(
        "default",
        'Precision of products and convolutions in float32: "default" is what the device takes, '
        'on a TPU one pass in bfloat16; "float32" is exact.',
        choices=("default", "tensorfloat32", "float32"),
    ),
    "mapping": Field(
        "pmap", "How the train step is mapped over devices.", choices=("pmap", "shard_map")
    ),
    "shard_optimizer": Field(
        False,
        "Each device keeps a part of Adam's moments and of the moving average; needs "
        'train.mapping = "shard_map".',
        may_change=True,
    ),
}

_SAMPLING = {
    "chunk_size": positive(
        64,
        "Images per device in one call of the compiled sampler.",
        "images",
        at_most=MOST_IMAGES,
    ),
    "num_steps": not_negative(
        0,
        "Denoising steps of the sampler; 0 takes diffusion.num_timesteps, other numbers need "
        'diffusion.schedule = "cosine".',
        "steps",
        at_most=MOST_TIMESTEPS,
    ),
}

# All fields but those of the networks, by section.
SECTIONS: dict[str, Section] = {
    "data": _DATA,
    "diffusion": _DIFFUSION,
    "objective": _OBJECTIVE,
    "optimizer": _OPTIMIZER,
    "train": _TRAIN,
    "log": changeable(LOG),
    "checkpoint": changeable(CHECKPOINT),
    "eval": changeable(EVAL),
    "sampling": changeable(_SAMPLING),
}
# Fields that name places on somebody's machine. Exports leave them empty, and those that come with
# somebody's export are not opened.
LOCAL_PATHS = paths(SECTIONS, "is_local_path")
MAY_CHANGE = paths(SECTIONS, "may_change")


def base_config() -> ConfigDict:
    """Return all fields with their defaults: DDGAN's networks for CIFAR-10, no data set chosen."""
    config = ConfigDict({name: make(section) for name, section in SECTIONS.items()})
    config.generator = make(NETWORKS["generator"]["ncsnpp"])
    config.discriminator = make(NETWORKS["discriminator"]["small"])
    return config


def has_points(config: ConfigDict) -> bool:
    """Return whether the config's data are points in the plane, and no images."""
    return config.data.name in POINT_SETS


def empty_local_paths(config: ConfigDict | dict[str, Any]) -> None:
    """Set the fields of LOCAL_PATHS to "", in place."""
    for path in LOCAL_PATHS:
        section, field = path.split(".")
        config[section][field] = ""
