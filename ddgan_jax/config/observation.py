"""Declare the fields of what a run reports, keeps and scores, each once, with their defaults.

None of them changes what a step computes, so that all may change while a run goes on.
"""

from ddgan_jax.config.schema import MOST_IMAGES, Field, not_negative, positive
from ddgan_jax.metrics import names

# What else is told about a run, besides the files in its folder; `training.writers` tells it.
WRITERS = ("tensorboard", "wandb", "mlflow", "trackio")

LOG = {
    "every_steps": positive(
        100, "Steps between lines of metrics, which are means over them.", "steps"
    ),
    "samples_every_steps": positive(5_000, "Steps between grids of samples.", "steps"),
    "num_samples": positive(
        64, "Images in a grid, always of the seeds 0, 1, 2, ...", "images", at_most=1_000_000
    ),
    "writers": Field(
        "tensorboard",
        f"Where metrics and pictures also go, with commas between: {', '.join(WRITERS)}; empty for "
        "the run folder alone.",
    ),
}

CHECKPOINT = {
    "save_every_steps": positive(5_000, "Steps between checkpoints.", "steps"),
    "keep_latest": positive(2, "Newest checkpoints that are kept.", "checkpoints"),
    "keep_every_steps": not_negative(
        0, "Also keep the checkpoints at multiples of this step; 0 keeps none of them.", "steps"
    ),
}

EVAL = {
    "every_steps": not_negative(
        0, "Steps between evaluations, with one at the end; 0 evaluates never.", "steps"
    ),
    "num_samples": positive(
        5_000,
        "Images of each evaluation, always of the seeds 0, 1, 2, ...",
        "images",
        at_most=MOST_IMAGES,
    ),
    "metrics": Field("frechet", 'Metrics as in `ddgan evaluate`, such as "fid,prdc".'),
    "features": Field(
        "classifier",
        'Network by whose features images are compared; fid, is and kid need "inception".',
        choices=names.FEATURES,
    ),
    "split": Field(
        "",
        'Split that images are compared with, such as "test", or "holdout" with data.holdout; '
        "empty takes that of the training.",
    ),
    "protocol": Field("tf1", "Preparation of images for Inception.", choices=names.PROTOCOLS),
    "inception": Field(
        "",
        "File of the weights of Inception; empty takes the one in the cache folder.",
        is_local_path=True,
    ),
    "best": Field(
        "frechet", "Number that chooses the checkpoint in WORKDIR/best; empty keeps none."
    ),
}
