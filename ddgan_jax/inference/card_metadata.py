"""Write the front matter of a model card: the fields by which a hub lists and finds models.

The hub refuses a card with a licence that it does not know, and people who made a model wrote its
texts. Every value here is therefore one of a closed set, and a text outside of it is left to the
card's body. `huggingface_hub.ModelCardData` reads what is written.
"""

import re
from collections.abc import Mapping
from typing import Any

from ddgan_jax.metrics.names import METRICS

SCORES = "eval/"  # before the names of scores in the log of a run
# Licences that the hub knows, among those of data and of code. Its names are the SPDX identifiers
# in small letters.
LICENCES = (
    "agpl-3.0",
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "creativeml-openrail-m",
    "gpl-2.0",
    "gpl-3.0",
    "isc",
    "lgpl-3.0",
    "mit",
    "mpl-2.0",
    "openrail",
    "unlicense",
)
# Data sets that the hub has, by the names that they have here.
DATA_SETS = {
    "cifar10": "uoft-cs/cifar10",
    "imagenet2012": "ILSVRC/imagenet-1k",
    "imagenet_resized/64x64": "ILSVRC/imagenet-1k",
    "mnist": "ylecun/mnist",
    "stacked_mnist": "ylecun/mnist",
}
# The plain name of a score: "frechet" in "frechet_pixels_1000".
_METRIC = re.compile(
    rf"({'|'.join(v for metric in METRICS.values() for v in metric.values)})(?=_|$)"
)


def front_matter(about: Mapping[str, Any]) -> list[str]:
    """Return the lines of the front matter, YAML between two "---". about: see `model_card`."""
    lines = ["---"]
    for name, value in fields(about).items():
        if isinstance(value, list):
            lines += [f"{name}:", *(f"- {entry}" for entry in value)]
        else:
            lines.append(f"{name}: {value}")
    return [*lines, "---"]


def fields(about: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Return the fields of the front matter in the order in which the hub's client writes them."""
    found: dict[str, str | list[str]] = {
        "library_name": "ddgan-jax",
        # The hub has no name for generators of images by class.
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["diffusion", "gan", about["method"].lower(), "jax"],
    }
    if (licence := about["licence"].lower()) in LICENCES:
        found["license"] = licence
    if data_set := DATA_SETS.get(about["data"]["name"]):
        found["datasets"] = [data_set]
    found_metrics = {
        match[0] for name in scores(about["metrics"]) if (match := _METRIC.match(name))
    }
    if found_metrics:
        found["metrics"] = sorted(found_metrics)
    return dict(sorted(found.items()))


def scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that say how good the images are, by their plain names.

    A run's log holds losses, norms and learning rates as well, which say that of no other run.
    """
    of_a_run = {n.removeprefix(SCORES): v for n, v in metrics.items() if n.startswith(SCORES)}
    # Published numbers have plain names. The log of a run names its source.
    return of_a_run if of_a_run or "source" in metrics else dict(metrics)
