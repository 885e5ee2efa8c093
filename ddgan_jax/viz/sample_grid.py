"""Put words around a grid of samples: which seed, class, weight or step each image is of."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ddgan_jax.config import has_points
from ddgan_jax.errors import UserError
from ddgan_jax.inference.model import Model
from ddgan_jax.inference.writers import Job
from ddgan_jax.viz import tiles, words
from ddgan_jax.viz.tiles import Block, Picture


def captions(model: Model, job: Job, columns: int | None) -> Callable[[np.ndarray], bytes]:
    """Return a function from the drawn images to a PNG file, for `requests.sample_command`.

    columns: of the grid, None for one as square as can be. Raises UserError for points, and for
    more images than a figure holds.
    """
    if has_points(model.config):
        raise UserError("`caption`: this model draws points, and captions are those of images")
    columns = columns or math.ceil(math.sqrt(job.num_images))
    steps = columns if job.what["trajectory"] else 1
    rows = -(-job.num_images * steps // columns)
    tiles.check_size(rows, columns, model.config.data.image_size)
    return lambda drawn: tiles.draw(figure(model, job, drawn, columns), ".png")


def figure(model: Model, job: Job, drawn: np.ndarray, columns: int) -> Picture:
    """Return the figure of a job's images (N, H, W, C), or of their steps (N, steps, H, W, C)."""
    shown = drawn.reshape(-1, *drawn.shape[-3:])
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    seeds, labels = (_integers(job, name) for name in ("seeds", "labels"))
    names = words.rows(seeds or [], labels)
    about = words.of_model(model)
    if drawn.ndim == 5:
        heads = [words.subscripted(f"x_{t}") for t in range(columns - 1, -1, -1)]
        about = f"{about} A row for each seed, a column for the result of each denoising step."
        return Picture("Samples, step by step", about, [Block("", rows, heads)], names)
    if "weights" in job.facts:
        weights = [f"{weight:.2g}" for weight in job.facts["weights"][:columns]]
        ends = zip(names[::columns], job.facts["other_seeds"][::columns], strict=True)
        about = f"{about} A row for each pair of seeds, a column for the weight of the second."
        pairs = [f"{first}\nto seed {last}" for first, last in ends]
        return Picture("Between seeds", about, [Block("", rows, weights)], pairs)
    if job.what["labels"] and labels is not None:
        heads = [f"seed {seed}" for seed in (seeds or [])[:columns]]
        classes = [f"class {label}" for label in labels[::columns]]
        about = f"{about} A row for each class, a column for each seed."
        return Picture("Samples by class", about, [Block("", rows, heads)], classes)
    below = [
        [name.replace("\n", ", ") for name in names[start : start + columns]]
        for start in range(0, len(names), columns)
    ]
    return Picture("Samples", about, [Block("", rows, below=below)])


def _integers(job: Job, name: str) -> Sequence[int] | None:
    return job.facts[name].tolist() if name in job.facts else None
