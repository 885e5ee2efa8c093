"""A cell of the 25-Gaussian table of the SIDDM paper as an ordinary run (Xu et al. 2023, Table 1).

    ddgan train --config=mog25:siddm --workdir=runs/mog25

Arguments: gan, ddgan, siddm or siddm_no_afd at the authors' settings; with "_reduced" behind it the
setting that fits a CPU; "tiny" trains two steps. `--config.diffusion.num_timesteps` chooses the
column. `ddgan experiment mog25` trains whole rows, several seeds at once, and makes the table.

Data: 250,000 points, made by the program. Hardware: any.
Published results (Frechet distance at T = 4): DDGAN 0.99, SIDDM 1.21, without AFD 53.22; GAN 12.04.
Measured by us: docs/siddm.md.
"""

from ddgan_jax.config import ConfigDict, tiny
from ddgan_jax.experiments.mog25_cells import cell_config


def get_config(arg: str = "siddm") -> ConfigDict:
    if arg == "tiny":
        c = cell_config("siddm", 4)
        tiny(c)
        return c
    # The GAN of the table has a single step by definition; the others stand in the column of T = 4.
    method, reduced, _ = arg.partition("_reduced")
    return cell_config(method, 1 if method == "gan" else 4, "reduced" if reduced else "paper")
