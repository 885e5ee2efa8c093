"""Draw the figures of a model that the flags of a command ask for."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from ddgan_jax import compiler
from ddgan_jax.cli.arguments import parse_labels, parse_names, parse_seeds
from ddgan_jax.config import has_points
from ddgan_jax.errors import UserError
from ddgan_jax.viz.figure_files import form_of

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


def denoising(values: flags.FlagValues, out: "epath.Path") -> None:
    """Draw several images from one noisy image into `out`, and print how far they lie apart."""
    # parse_names returns a list, of which this flag has one entry.
    (noise,) = parse_names("posterior_noise", values.posterior_noise, ("own", "same"))
    from ddgan_jax.viz import denoising as figures

    model = _open(values, values.draws)
    _check_size(values, model.num_steps, 2 * values.draws + 3, model)
    image, label = _real_image(model, values)
    # Each draw has a latent z of its own seed, and all begin with the same noisy image.
    seeds = range(values.seed, values.seed + values.draws)
    drawn = figures.denoise_once(model, image, seeds, label, same_posterior=noise == "same")
    _write(
        values,
        out,
        lambda: figures.figure(model, image, drawn, seeds),
        lambda: figures.picture(image, drawn),
    )
    print(figures.table(model, drawn))
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


def trajectory(values: flags.FlagValues, out: "epath.Path") -> None:
    """Draw the way from noise to the images of the seeds into `out`."""
    model, seeds, labels = _request(values)
    from ddgan_jax import images
    from ddgan_jax.viz import trajectory as figures

    _check_size(values, len(seeds), len(figures.columns(model)), model)
    rows = figures.rows(model, seeds, labels)
    _write(
        values,
        out,
        lambda: figures.figure(model, seeds, labels, rows),
        lambda: images.side_by_side([rows]),
    )
    print(f"columns: {', '.join(figures.columns(model))}")
    print(f"{len(rows)} trajectories of step {model.step} in {out}")


def neighbours(values: flags.FlagValues, out: "epath.Path") -> None:
    """Draw samples before their nearest training images into `out`, and print the distances."""
    model, seeds, labels = _request(values)
    from ddgan_jax import images
    from ddgan_jax.viz import neighbours as figures

    _check_size(values, len(seeds), values.neighbours + 1, model)
    dataset = _open_set(model, values.data_dir)
    samples = model.sample(seeds, labels)
    found = figures.nearest(dataset, samples, values.neighbours)
    _write(
        values,
        out,
        lambda: figures.figure(model, seeds, labels, samples, found, dataset),
        lambda: images.side_by_side([samples[:, None], found.images]),
    )
    print(figures.table(seeds, found))
    print(
        f"{len(samples)} samples of step {model.step}, each before its {values.neighbours} nearest "
        f"of {dataset.info.num_examples:,} images of {dataset.info.name}, in {out}"
    )


def edit(values: flags.FlagValues, out: "epath.Path") -> None:
    """Draw a picture and the model's versions of it into `out`, and print their distance."""
    model, seeds, labels = _request(values)
    from ddgan_jax import images
    from ddgan_jax.inference import given_image
    from ddgan_jax.viz import distances
    from ddgan_jax.viz import edit as figures

    _check_size(values, -(-len(seeds) // figures.COLUMNS), figures.COLUMNS + 1, model)
    data = model.config.data
    given = given_image.read(values.input, data.image_size, data.channels)
    if values.strokes:
        given = figures.strokes(given, values.strokes)
    results, t = figures.edit(model, given, seeds, labels, from_step=values.from_step)
    _write(
        values,
        out,
        lambda: figures.figure(model, given, results, t, seeds, labels),
        lambda: images.side_by_side([given[None, None], results[None]]),
    )
    lengths = distances.from_one(results, given)
    print(f"mean L2 from the input: {lengths.mean():.4g}")
    print(
        f"{len(results)} results from step {t} of {model.num_steps}, behind their input, in {out}"
    )
