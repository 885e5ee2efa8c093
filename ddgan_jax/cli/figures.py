"""Declare the commands that picture a model: figure denoising, trajectory, neighbours, edit."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from ddgan_jax import compiler
from ddgan_jax.cli.arguments import Flag, parse_labels, parse_names, parse_seeds
from ddgan_jax.cli.command import (
    DENOISING_STEPS,
    EXPORT,
    FORCE,
    STEP,
    WORKDIR,
    Command,
    into_file,
)
from ddgan_jax.config import MOST_TIMESTEPS, has_points
from ddgan_jax.errors import UserError
from ddgan_jax.viz.figure_files import FORMS, form_of

if TYPE_CHECKING:
    import numpy as np
    from etils import epath

    from ddgan_jax.data import Dataset
    from ddgan_jax.inference.model import Model
    from ddgan_jax.viz.tiles import Picture


def _open(values: flags.FlagValues, count: int) -> "Model":
    """Return the model that the flags name, with chunks of no more than `count` images."""
    compiler.keep_programs()
    from ddgan_jax import distributed
    from ddgan_jax.inference.load import open_model

    model = open_model(values.workdir, values.export, values.step)
    model = model.in_steps(values.denoising_steps)
    if has_points(model.config):
        raise UserError("this model draws points, and the figures are of images")
    # The sampler fills up every chunk, and the images beyond the count would be drawn for nobody.
    size = -(-count // len(distributed.local_devices()))
    return model.with_sampling(chunk_size=min(size, model.config.sampling.chunk_size))


def _open_set(model: "Model", data_dir: str) -> "Dataset":
    from ddgan_jax import data

    if data_dir:
        # The config is a copy, see Model.with_sampling.
        model.config.data.dir = data_dir
    return data.open_dataset(model.config)


def _request(values: flags.FlagValues) -> tuple["Model", Sequence[int], Sequence[int] | None]:
    """Return the model, and the seed and label of each image: every seed with each of the labels.

    A model without classes gets no labels.
    """
    # The flags are read before the model is opened, so that a mistake in them shows at once.
    seeds, labels = parse_seeds(values.seeds, most=10_000), parse_labels(values.labels)
    from ddgan_jax.inference import drawing

    model = _open(values, len(seeds))
    request = drawing.each_class(model.config.data.num_classes, seeds, labels)
    # A model without classes takes no labels; the request has zeros in their place.
    labels = list(map(int, request.labels)) if model.config.data.num_classes else None
    return model, list(map(int, request.seeds)), labels


def _figure(run: Callable[..., None]) -> Callable[..., None]:
    """Return the function for `Command.run` of a figure, by the ending of --out."""
    write = into_file(run, *FORMS)

    def checked(values: flags.FlagValues) -> None:
        (captions,) = parse_names("captions", values.captions, ("full", "none"))
        if captions == "none" and form_of(values.out) not in (".png", ""):
            raise UserError(f"--captions=none: pixels alone are a .png, not {values.out}")
        write(values)

    return checked


def _check_size(values: flags.FlagValues, rows: int, columns: int, model: "Model") -> None:
    """Refuse more tiles than a figure can hold, before the images are drawn."""
    from ddgan_jax.viz import tiles

    if values.captions == "full":
        tiles.check_size(rows, columns, model.config.data.image_size)


def _write(
    values: flags.FlagValues,
    out: "epath.Path",
    figure: Callable[[], "Picture"],
    plain: Callable[[], "np.ndarray"],
) -> None:
    """Write the figure with its words, or the tiles alone."""
    from ddgan_jax import images
    from ddgan_jax.files import atomic
    from ddgan_jax.viz import tiles

    if values.captions == "none":
        images.write_png(out, plain())
    else:
        atomic.write_atomically(out, tiles.draw(figure(), form_of(out)))


def _denoising(values: flags.FlagValues, out: "epath.Path") -> None:
    # parse_names returns a list, of which this flag has one entry.
    (noise,) = parse_names("posterior_noise", values.posterior_noise, ("own", "same"))
    from ddgan_jax.viz import denoising

    model = _open(values, values.draws)
    _check_size(values, model.num_steps, 2 * values.draws + 3, model)
    image, label = _real_image(model, values)
    # Each draw has a latent z of its own seed, and all begin with the same noisy image.
    seeds = range(values.seed, values.seed + values.draws)
    drawn = denoising.denoise_once(model, image, seeds, label, same_posterior=noise == "same")
    _write(
        values,
        out,
        lambda: denoising.figure(model, image, drawn, seeds),
        lambda: denoising.picture(image, drawn),
    )
    print(denoising.table(model, drawn))
    # A model that predicts x_(k-1) itself has no predictions of x_0 to show.
    given = "x_0, x_k" + ", predictions of x_0" * (drawn.x_0 is not None)
    print(f"{given}, draws of x_(k-1), deviation, for each k of step {model.step} in {out}")


def _real_image(model: "Model", values: flags.FlagValues) -> tuple["np.ndarray", int]:
    """Return x_0 and its class, from the file --image or from the run's data set."""
    import numpy as np

    from ddgan_jax.inference import given_image

    data = model.config.data
    label = values.label
    if values.image:
        image = given_image.read(values.image, data.image_size, data.channels)
    else:
        dataset = _open_set(model, values.data_dir)
        # The number of examples is known only when the set is open, so that no bound of the flag
        # could say it.
        if not 0 <= values.example < dataset.info.num_examples:
            last = dataset.info.num_examples - 1
            raise UserError(f"--example={values.example}: {data.name} has the examples 0 to {last}")
        (image,), (found,) = dataset.read(np.array([values.example]))
        # A class that the user names comes before the one that the data set has.
        label = int(found) if label is None and data.num_classes else label
    if label is None:
        # Without classes the network reads no label, and the array of labels holds zeros.
        return image, 0
    # This refuses a class that the model does not know.
    return image, int(model.request([0], label).labels[0])


def _trajectory(values: flags.FlagValues, out: "epath.Path") -> None:
    model, seeds, labels = _request(values)
    from ddgan_jax import images
    from ddgan_jax.viz import trajectory

    _check_size(values, len(seeds), len(trajectory.columns(model)), model)
    rows = trajectory.rows(model, seeds, labels)
    _write(
        values,
        out,
        lambda: trajectory.figure(model, seeds, labels, rows),
        lambda: images.side_by_side([rows]),
    )
    print(f"columns: {', '.join(trajectory.columns(model))}")
    print(f"{len(rows)} trajectories of step {model.step} in {out}")


def _neighbours(values: flags.FlagValues, out: "epath.Path") -> None:
    model, seeds, labels = _request(values)
    from ddgan_jax import images
    from ddgan_jax.viz import neighbours

    _check_size(values, len(seeds), values.neighbours + 1, model)
    dataset = _open_set(model, values.data_dir)
    samples = model.sample(seeds, labels)
    found = neighbours.nearest(dataset, samples, values.neighbours)
    _write(
        values,
        out,
        lambda: neighbours.figure(model, seeds, labels, samples, found, dataset),
        lambda: images.side_by_side([samples[:, None], found.images]),
    )
    print(neighbours.table(seeds, found))
    print(
        f"{len(samples)} samples of step {model.step}, each before its {values.neighbours} nearest "
        f"of {dataset.info.num_examples:,} images of {dataset.info.name}, in {out}"
    )


def _edit(values: flags.FlagValues, out: "epath.Path") -> None:
    model, seeds, labels = _request(values)
    from ddgan_jax import images
    from ddgan_jax.inference import given_image
    from ddgan_jax.viz import distances
    from ddgan_jax.viz.edit import COLUMNS, edit, figure, strokes

    _check_size(values, -(-len(seeds) // COLUMNS), COLUMNS + 1, model)
    data = model.config.data
    given = given_image.read(values.input, data.image_size, data.channels)
    if values.strokes:
        given = strokes(given, values.strokes)
    results, t = edit(model, given, seeds, labels, from_step=values.from_step)
    _write(
        values,
        out,
        lambda: figure(model, given, results, t, seeds, labels),
        lambda: images.side_by_side([given[None, None], results[None]]),
    )
    lengths = distances.from_one(results, given)
    print(f"mean L2 from the input: {lengths.mean():.4g}")
    print(
        f"{len(results)} results from step {t} of {model.num_steps}, behind their input, in {out}"
    )


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
        run=_figure(_denoising),
    ),
    "figure trajectory": Command(
        summary="from noise to image, step by step",
        description=(
            "A row for each seed: the noise, what the first step predicts, where it arrives,\n"
            "what the next one predicts, and so on to the image of `ddgan sample`."
        ),
        flags=(*_MODEL, *_SEEDS, _CAPTIONS, _out("trajectory.png"), FORCE),
        examples=("ddgan figure trajectory --workdir=runs/digits --seeds=0-7",),
        run=_figure(_trajectory),
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
        run=_figure(_neighbours),
    ),
    "figure edit": Command(
        summary="noise a given picture to a step and denoise it",
        description=(
            "The model's own version of a picture, such as a painting in a few strokes: noised to\n"
            "step t and denoised in t steps, once for each seed. The later t, the less is left of\n"
            "the picture. Prints the mean L2 distance from it, of images in [-1, 1]."
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
        run=_figure(_edit),
    ),
}
