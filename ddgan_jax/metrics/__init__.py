"""Compare generated images with real ones, by functions of sets of features in numpy float64.

The shortest use:

    pool3, logits = metrics.inception.features(params, images)
    metrics.frechet_distance(pool3_real, pool3_fake)                             # FID
    metrics.kernel_distance(pool3_real, pool3_fake)                              # KID
    metrics.precision_recall(pool3_real, pool3_fake)                             # fidelity, variety
    metrics.inception_score(logits)

`statistics` gathers the mean and covariance of a set that is too large to keep, and stores them
with what they were made from. `mode_statistics` counts the modes of stacked digits,
`mixture_statistics` those of a mixture of Gaussians in the plane. `names` lists the metrics that
users can ask for. `inception` extracts features on devices and therefore lies in `evaluation`; it
is reachable from here because it is the first line of every use.

Importing this package is cheap: each metric is imported on the first use of its name.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from ddgan_jax.metrics import names, statistics
    from ddgan_jax.metrics.frechet import frechet_distance, frechet_distance_from_statistics
    from ddgan_jax.metrics.kernel import kernel_distance, kernel_distance_of_subsets
    from ddgan_jax.metrics.mixture import mixture_statistics
    from ddgan_jax.metrics.modes import mode_statistics
    from ddgan_jax.metrics.neighbours import density_coverage, precision_recall
    from ddgan_jax.metrics.score import inception_score

    inception: ModuleType

__all__ = [
    "density_coverage",
    "frechet_distance",
    "frechet_distance_from_statistics",
    "inception",
    "inception_score",
    "kernel_distance",
    "kernel_distance_of_subsets",
    "mixture_statistics",
    "mode_statistics",
    "names",
    "precision_recall",
    "statistics",
]

# The module that defines each function.
_HOMES = {
    "density_coverage": "neighbours",
    "frechet_distance": "frechet",
    "frechet_distance_from_statistics": "frechet",
    "inception_score": "score",
    "kernel_distance": "kernel",
    "kernel_distance_of_subsets": "kernel",
    "mixture_statistics": "mixture",
    "mode_statistics": "modes",
    "precision_recall": "neighbours",
}
_MODULES = {
    "inception": "ddgan_jax.evaluation.inception",
    "names": "ddgan_jax.metrics.names",
    "statistics": "ddgan_jax.metrics.statistics",
}


def __getattr__(name: str) -> Any:
    # Python calls this for names that the package does not have yet, and for those alone.
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
