"""Declare the commands that picture a model: figure denoising, trajectory, neighbours, edit."""

from collections.abc import Callable

from absl import flags

from ddgan_jax.cli import figure_runs
from ddgan_jax.cli.arguments import Flag, parse_names
from ddgan_jax.cli.command import (
    DENOISING_STEPS,
    EXPORT,
    FORCE,
    STEP,
    WORKDIR,
    Command,
    into_file,
)
from ddgan_jax.config import MOST_TIMESTEPS
from ddgan_jax.errors import UserError
from ddgan_jax.viz.figure_files import FORMS, form_of


def _figure(run: Callable[..., None]) -> Callable[..., None]:
    """Return the function for `Command.run` of a figure, by the ending of --out."""
    write = into_file(run, *FORMS)

    def checked(values: flags.FlagValues) -> None:
        (captions,) = parse_names("captions", values.captions, ("full", "none"))
        if captions == "none" and form_of(values.out) not in (".png", ""):
            raise UserError(f"--captions=none: pixels alone are a .png, not {values.out}")
        write(values)

    return checked


def _out(default: str) -> Flag:
    return Flag("out", "FILE", "the figure: a .png, .svg or .pdf", default)


_MODEL = (WORKDIR, EXPORT, STEP, DENOISING_STEPS)
_SEEDS = (
    Flag("seeds", "LIST", "one image per seed, e.g. 0-7 or 1,5,10-20", "0-7"),
    Flag("labels", "LIST", "classes, each with every seed; without it they take turns", ""),
)
_CAPTIONS = Flag("captions", "KIND", "full, or none: the pixels of the images alone, a PNG", "full")
_DATA_DIR = Flag("data_dir", "FOLDER", "prepared data sets; without it as in the run", "")

COMMANDS = {
    "figure denoising": Command(
        summary="several images from one noisy image: is the model multimodal",
        description=(
            "Noise a real image to every step and denoise it once with several latents z: a row\n"
            "for each step with x_0, x_k, the predictions of x_0, the draws of x_(k-1), and each\n"
            "pixel's standard deviation. Prints the mean L2 distance between the predictions,\n"
            "0 for a model that has collapsed."
        ),
        flags=(
            *_MODEL,
            Flag("image", "FILE", "the real image; without it one of the run's data set", ""),
            Flag("example", "N", "number of the image in the data set", 0, "integer"),
            _DATA_DIR,
            Flag(
                "label",
                "N",
                "class of the image; without it the class of the example, or 0",
                None,
                "integer",
            ),
            Flag(
                "draws",
                "N",
                "predictions for each step",
                4,
                "integer",
                at_least=2,
                at_most=1_000,
            ),
            Flag("seed", "N", "seed of the noise, and of the first z", 0, "integer"),
            Flag(
                "posterior_noise",
                "KIND",
                "noise of x_(k-1): own to each draw, or the same for all",
                "own",
            ),
            _CAPTIONS,
            _out("denoising.png"),
            FORCE,
        ),
        examples=(
            "ddgan figure denoising --workdir=runs/digits",
            "ddgan figure denoising --export=exports/cifar10 --image=horse.png --draws=6",
        ),
        run=_figure(figure_runs.denoising),
    ),
    "figure trajectory": Command(
        summary="from noise to image, step by step",
        description=(
            "A row for each seed: the noise, what the first step predicts, where it arrives,\n"
            "what the next one predicts, and so on to the image of `ddgan sample`."
        ),
        flags=(*_MODEL, *_SEEDS, _CAPTIONS, _out("trajectory.png"), FORCE),
        examples=("ddgan figure trajectory --workdir=runs/digits --seeds=0-7",),
        run=_figure(figure_runs.trajectory),
    ),
    "figure neighbours": Command(
        summary="the training images nearest to samples: does the model copy",
        description=(
            "A row for each seed: its image, then the images of the run's data set that are\n"
            "nearest, pixel by pixel, as they are stored and not mirrored. Prints their\n"
            "example numbers and L2 distances, of images in [-1, 1]."
        ),
        flags=(
            *_MODEL,
            *_SEEDS,
            Flag(
                "neighbours",
                "K",
                "neighbours of each image",
                5,
                "integer",
                at_least=1,
                at_most=1_000,
            ),
            _DATA_DIR,
            _CAPTIONS,
            _out("neighbours.png"),
            FORCE,
        ),
        examples=("ddgan figure neighbours --workdir=runs/digits --seeds=0-7 --neighbours=5",),
        run=_figure(figure_runs.neighbours),
    ),
    "figure edit": Command(
        summary="noise a given picture to a step and denoise it",
        description=(
            "The model's own version of a picture, such as a painting in a few strokes: noised to\n"
            "step t and denoised in t steps, once for each seed. The larger t, the less is left\n"
            "of the picture. Prints the mean L2 distance from it, of images in [-1, 1]."
        ),
        flags=(
            Flag("input", "FILE", "the picture, cropped to a square", required=True),
            *_MODEL,
            Flag(
                "from_step",
                "T",
                "step from 1 on; without it half of the model's steps",
                kind="integer",
                at_least=1,
                at_most=MOST_TIMESTEPS,
            ),
            *_SEEDS,
            Flag(
                "strokes",
                "N",
                "first paint the picture in N flat colours, 2 or more; 0: do not",
                0,
                "integer",
                at_most=256,
            ),
            _CAPTIONS,
            _out("edit.png"),
            FORCE,
        ),
        examples=(
            "ddgan figure edit --workdir=runs/church --input=painting.png --from-step=2",
            "ddgan figure edit --export=exports/church --input=photo.jpg --strokes=6",
        ),
        run=_figure(figure_runs.edit),
    ),
}
