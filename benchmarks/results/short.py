"""Say what was measured of a config in a few words, for the table of configs in README.md."""

import statistics
from collections.abc import Mapping

from benchmarks.results import claims, mixture, mnist
from benchmarks.results.records import Results
from benchmarks.results.spread import over_seeds
from ddgan_jax.config.files import load_config
from ddgan_jax.experiments.claims_rows import Table

MNIST = "mnist_ddgan"
# Kinds of numbers, the one that is shown first: a name continues with the features or the count.
PREFERRED = ("fid", "frechet_classifier", "frechet_pixels")


def short_number(config: str, results: Results, tables: Mapping[str, Table]) -> str | None:
    """Return the numbers of a shipped config in a few words, None if nothing was measured.

    Numbers of a table of claims are the means over the seeds of the row that changes nothing.
    """
    if config == "mog25":
        return _of_mixture(results)
    if config == MNIST:
        return _of_mnist(results)
    for name, table in tables.items():
        # A table whose rows all change the config is not about the config.
        if table.config == config and not table.overrides:
            return _of_claims(name, table, results)
    return None


def _of_claims(name: str, table: Table, results: Results) -> str | None:
    row = claims.default_row(table)
    runs, steps = results.of_row(name, row), claims.trained_steps(table, row)
    modes, kl = (
        [v for v in claims.values_of(runs, measure, steps) if v is not None]
        for measure in ("modes", "kl")
    )
    if not modes or not kl:
        return None
    return f"{statistics.fmean(modes):,.0f} of 1,000 modes, KL {statistics.fmean(kl):.2f}"


def _of_mixture(results: Results) -> str | None:
    """Return the distance of SIDDM at T = 4, which the config trains if nothing else is said."""
    for size in mixture.sizes(results.cells):
        for cell in results.cells:
            if (cell.method, cell.num_timesteps) == ("siddm", 4) and mixture.size_of(cell) == size:
                distances = mixture.kept(cell, "frechet")
                if distances:
                    mean = over_seeds([statistics.fmean(distances)])
                    return f"SIDDM, T = 4: Fréchet distance {mean}"
    return None


def _of_mnist(results: Results) -> str | None:
    """Return the distance of the newest checkpoint in the config's own number of steps."""
    if not results.mnist:
        return None
    steps = load_config(MNIST).diffusion.num_timesteps
    of_steps = [r for r in mnist.in_order(results) if mnist.sampling_steps(r) == steps]
    for kind in PREFERRED if of_steps else ():
        for name, value in of_steps[-1].metrics.items():
            if name.startswith(kind):
                label = "FID" if kind == "fid" else f"Fréchet distance ({kind.split('_')[1]})"
                return f"{label} {value:.3g}"
    return None
