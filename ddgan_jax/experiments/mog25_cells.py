"""Define the cells of the 25-Gaussian table: a config for each method and setting.

The program that trains them is apart, so that a config file can name a cell without loading JAX.
"""

from ddgan_jax.config import DISCRIMINATORS, GENERATORS, ConfigDict, base_config
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import UserError

# Frechet distances of the paper's Table 1, by method and number of steps.
PAPER = {
    "gan": {1: 12.04},
    "ddgan": {2: 7.27, 4: 0.99, 8: 0.49, 16: 0.53},
    "siddm": {2: 0.14, 4: 1.21, 8: 0.30, 16: 0.23},
    "siddm_no_afd": {2: 21.19, 4: 53.22, 8: 7.04, 16: 14.37},
}

_SIDDM = {"objective.joint": False, "objective.afd_weight": 1.0}

# What a method changes in the config.
METHODS = {
    "gan": {
        "diffusion.schedule": "one_shot",
        "objective.joint": False,
    },
    "ddgan": {"objective.joint": True},
    "siddm": _SIDDM,
    "siddm_no_afd": {"objective.joint": False},
    # Not in the paper: other forms of the AFD term, with the head C and without.
    "siddm_recon": _SIDDM | {"objective.afd_form": "recon"},
    "siddm_recon_c": _SIDDM | {"objective.afd_form": "recon", "objective.afd_regression": True},
    "siddm_kl_c": _SIDDM | {"objective.afd_form": "kl", "objective.afd_regression": True},
}

# "paper": the authors' toy program. "reduced": ours, for a CPU; its distances are no reproduction.
SETTINGS = {
    "paper": {},
    "reduced": {
        "data.name": "mog25_scaled",
        "train.batch_size": 256,
        "train.num_steps": 30_000,
        "optimizer.generator_learning_rate": 1e-3,
        "optimizer.discriminator_learning_rate": 1e-3,
        "optimizer.ema_decay": 0.999,
    },
}


def cell_config(method: str, num_timesteps: int, setting: str = "paper") -> ConfigDict:
    """Return the config of a cell.

    Raises UserError for an unknown name or a "gan" of several steps.
    """
    c = base_config()
    c.data.name, c.data.image_size, c.data.channels, c.data.flip = "mog25", 1, 2, False
    c.generator, c.discriminator = GENERATORS["mlp"](), DISCRIMINATORS["mlp"]()
    c.diffusion.schedule = "cosine"
    c.diffusion.num_timesteps = num_timesteps
    # The authors' toy program has neither head, and tells the discriminator s instead of tau.
    c.objective.afd_form = "code"
    c.objective.afd_regression = False
    c.objective.discriminator_time = "t"
    c.objective.r1_gamma = 0.0
    c.optimizer.generator_learning_rate = 1e-4
    c.optimizer.discriminator_learning_rate = 4e-4
    c.optimizer.beta2 = 0.999
    c.optimizer.ema_decay = 0.0
    c.train.batch_size = 4_000
    c.train.num_steps = 187_500
    c.log.samples_every_steps = 25_000
    c.log.num_samples = 10_000
    c.checkpoint.save_every_steps = 25_000
    c.sampling.chunk_size = 10_000
    for table, name in ((METHODS, method), (SETTINGS, setting)):
        if name not in table:
            raise UserError(f"{name!r} is not one of {', '.join(table)}")
        c.update_from_flattened_dict(table[name])
    validate(c)
    return c
