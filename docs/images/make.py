"""Make the pictures of README.md and of the site from a run on the digits.

    ddgan train --config=digits_ddgan --workdir=runs/pictures \\
        --config.log.samples_every_steps=100 --config.log.num_samples=64
    python docs/images/make.py runs/pictures

The run takes a few minutes on a CPU, the pictures less than one.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import ddgan_jax
from ddgan_jax.cli import main as ddgan
from ddgan_jax.images import GAP
from ddgan_jax.viz import tiles, words

HERE = Path(__file__).parent
# Columns of a grid of 64.
COLUMNS = 8
SHOWN_STEPS = (100, 200, 400, 800, 2_400)


def digits(model) -> None:
    """Draw 40 samples, with a caption that says of which model."""
    rows = np.asarray(model.sample(range(40))).reshape(-1, 10, 8, 8, 1)
    about = words.of_model(model)
    picture = tiles.Picture("Digits from noise in two steps", about, [tiles.Block("", rows)])
    (HERE / "digits.png").write_bytes(tiles.draw(picture, ".png"))


def icon(model) -> None:
    """Draw one sample as the site's icon."""
    (image,) = np.asarray(model.sample([7]))
    Image.fromarray(image.repeat(8, 0).repeat(8, 1)[..., 0]).save(HERE / "icon.png")


def training(run: Path) -> None:
    """Draw the first images of the grids of a run, a row for each of some steps."""
    rows = [_first_row(run / "samples" / f"step_{step}.png") for step in SHOWN_STEPS]
    picture = tiles.Picture(
        "The same eight seeds while a model trains",
        "DDGAN on digits, batches of 32 images, averaged parameters.",
        [tiles.Block("", rows)],
        [f"step {step:,}" for step in SHOWN_STEPS],
    )
    (HERE / "training.png").write_bytes(tiles.draw(picture, ".png"))


def _first_row(file: Path) -> list[np.ndarray]:
    """Return the images in the first row of a grid, each 8 pixels wide again."""
    picture = np.asarray(Image.open(file))[..., None]
    side = (len(picture) + GAP) // COLUMNS
    scale = (side - GAP) // 8
    starts = range(0, COLUMNS * side, side)
    return [picture[: side - GAP : scale, x : x + side - GAP : scale] for x in starts]


if __name__ == "__main__":
    run = Path(sys.argv[1])
    trained = ddgan_jax.load(run)
    digits(trained)
    icon(trained)
    training(run)
    out = HERE / "denoising.png"
    flags = [f"--workdir={run}", "--draws=4", f"--out={out}", "--force"]
    sys.exit(ddgan(["figure", "denoising", *flags]))
