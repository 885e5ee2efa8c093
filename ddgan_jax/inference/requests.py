"""Do the work of `ddgan sample`: find out which images of which model go into which file."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import images, pixels, progress
from ddgan_jax.config import has_points
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import locks
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.files.paths import run_folder_path, user_path
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import drawing, given_image, load, writers
from ddgan_jax.inference.model import Model
from ddgan_jax.inference.places import place_of
from ddgan_jax.sampling import UNVARIED, Variation

# Images of one picture, which is made in memory.
MOST_IN_A_GRID = 10_000

# Makes the file of a picture with words from the drawn images. None: as many columns as rows.
Captions = Callable[[Model, writers.Job, int | None], Callable[[np.ndarray], bytes]]


class Options(NamedTuple):
    """The images to draw, beside their seeds.

    labels: every seed is drawn for each of them; without labels seed s has class s modulo the
    number of classes. interpolate: number of images between each two neighbouring seeds.
    latent_seed: the seed whose z all images get. image: a file from which the chain begins, at step
    `start`, by default half way. trajectory: draw each image with all steps before it.
    """

    labels: Sequence[int] | Literal["all"] = ()
    interpolate: int = 0
    latent_seed: int | None = None
    image: str | None = None
    start: int | None = None
    trajectory: bool = False


def sample_command(
    workdir: str | None,
    export_dir: str | None,
    *,
    seeds: Sequence[int],
    out: str,
    options: Options,
    step: int | None = None,
    num_steps: int = 0,
    captions: Captions | None = None,
    force: bool = False,
) -> None:
    """Write images of a run folder or of an export to `out`: one picture, or as `writers.write`.

    step: step of the run's checkpoint, None for the newest whole one. num_steps: denoising steps, 0
    for the number in the config. captions: puts words around a picture. force: replace a picture
    that this program did not write. Raises UserError if there is no such model, if it cannot draw
    these images, or if `out` cannot be written; BusyError if another process is writing it.
    """
    place = place_of(out)
    if captions and place.form != ".png":
        raise UserError(f"`caption` is for a picture: name a .png, not {shown(out, 300)}")
    with progress.phase("reading the model"):
        model = load.open_model(workdir, export_dir, step).in_steps(num_steps)
    # Before the job is made: a model that cannot draw has no use for options.
    model.check_drawable()
    job = make_job(model, seeds, options)
    # One picture holds all images at once, and every other form is written in parts.
    if place.form == ".png":
        columns = _columns(model, seeds, options)
        finish = captions(model, job, columns) if captions else None
        with locks.output_file(place.path, force=force) as path:
            _write_picture(job, path, columns, finish)
    else:
        writers.write(job, out)
    better = _best_step(workdir, step, model)
    print(f"{job.num_images} images of step {model.step} in {shown(out, 300)}{better}")


def _best_step(workdir: str | None, step: int | None, model: Model) -> str:
    """Return the end of a message: where a run keeps a better step than the newest; "" if not."""
    # Whoever names a step knows why.
    if workdir is None or step is not None:
        return ""
    best = RunFolder(run_folder_path(workdir)).best
    steps = best.checkpoint_folders()
    if not steps or max(steps) == model.step:
        return ""
    return f"; the best step so far, {max(steps)}, is a run folder, too: {shown(best.path, 300)}"


def make_job(model: Model, seeds: Sequence[int], options: Options) -> writers.Job:
    """Return the images to write. Raises UserError for images that the model cannot draw."""
    config = model.config
    request, variation = _noise_of(config, seeds, options)
    x_0 = _read_image(options.image, config) if options.image else None
    start = options.start
    if start is None:
        start = model.num_steps // 2 if options.image else 0

    def draw(positions: np.ndarray) -> Iterator[np.ndarray]:
        # Positions and not seeds choose the images, since a seed may stand there with several
        # classes.
        chosen, varied = jax.tree.map(lambda a: a[positions], (request, variation))
        if x_0 is not None:
            # Every image begins with the same given one; broadcasting makes no copies on the host.
            varied = varied._replace(x_0=np.broadcast_to(x_0, (len(positions), *x_0.shape)))
        for drawn in model.draw(chosen, varied, start=start, trajectory=options.trajectory):
            if not options.trajectory:
                yield drawn
            else:
                yield drawn.x_t if has_points(config) else pixels.to_uint8(drawn.x_t)

    facts = request._asdict() | variation._asdict()
    if not config.data.num_classes:
        del facts["labels"]
    # The image enters by its pixels: a file of that name may be another one tomorrow.
    what = options._replace(image=_sha256(x_0), start=start)._asdict()
    return writers.Job(
        what={"model": model.sha256, **what},
        num_images=len(request.seeds),
        names=functools.partial(_names, request, variation),
        facts={name: values for name, values in facts.items() if values is not None},
        draw=draw,
    )


def _write_picture(
    job: writers.Job,
    path: epath.Path,
    columns: int | None,
    finish: Callable[[np.ndarray], bytes] | None,
) -> None:
    """Write all images as one grid, or all points as one scatter plot; or as `finish` makes it."""
    if job.num_images > MOST_IN_A_GRID:
        raise UserError(
            f"{job.num_images:,} images do not fit into one picture, at most {MOST_IN_A_GRID:,}: "
            "name a folder or an .npz"
        )
    with writers.progress_of(0, job.num_images) as display:
        drawn = drawing.concatenate(display.counted(job.draw(np.arange(job.num_images))))
    if finish:
        write_atomically(path, finish(drawn))
    else:
        images.write_png(path, images.picture(drawn.reshape(-1, *drawn.shape[-3:]), columns))


def _noise_of(
    config: ConfigDict, seeds: Sequence[int], options: Options
) -> tuple[drawing.Request, Variation]:
    """Return the seeds and classes of all images, and the changes to their noise."""
    if options.interpolate:
        request, variation = _between(config, seeds, options)
    else:
        request = drawing.each_class(config.data.num_classes, seeds, options.labels)
        variation = UNVARIED
    if options.latent_seed is not None:
        latents = np.full(len(request.seeds), options.latent_seed, np.uint32)
        variation = variation._replace(latent_seeds=latents)
    return request, variation


def _between(
    config: ConfigDict, seeds: Sequence[int], options: Options
) -> tuple[drawing.Request, Variation]:
    """Return the images from each seed to the next one, both included, one pair after another."""
    if len(seeds) < 2:
        raise UserError("`interpolate` needs two seeds or more")
    # With labels the pairs repeat, one label after the other, as the seeds of `first` do.
    first = drawing.each_class(config.data.num_classes, seeds[:-1], options.labels)
    last = np.resize(np.asarray(seeds[1:], np.uint32), len(first.seeds))
    drawing.check_count(len(last) * (options.interpolate + 2))
    points = np.linspace(0, 1, options.interpolate + 2, dtype=np.float32)
    request = drawing.Request(*(np.repeat(part, len(points)) for part in first))
    variation = UNVARIED._replace(
        other_seeds=np.repeat(last, len(points)), weights=np.tile(points, len(last))
    )
    return request, variation


def _columns(model: Model, seeds: Sequence[int], options: Options) -> int | None:
    """Return the number of columns of a grid, None for a grid as square as can be."""
    if options.trajectory:
        return model.num_steps - (options.start or 0)
    if options.interpolate:
        return options.interpolate + 2
    # With labels each class has a row of its own.
    return len(seeds) if options.labels else None


def _names(request: drawing.Request, variation: Variation) -> list[str]:
    """Return a file name for each image."""
    others, weights = variation.other_seeds, variation.weights
    if others is None or weights is None:
        return drawing.names(request)
    # The seeds of both ends and the weight make the name of an image between them unique.
    ways = zip(request.labels, request.seeds, others, weights, strict=True)
    return [f"class{c:04d}_{a:06d}_{b:06d}_{weight:.4f}" for c, a, b, weight in ways]


def _read_image(path: str, config: ConfigDict) -> np.ndarray:
    """Return the image of a file, float32 (H, W, C) in [-1, 1], fitted as images for training."""
    if has_points(config):
        raise UserError("`image`: this model draws points")
    place = user_path(path, "image")
    size, channels = config.data.image_size, config.data.channels
    return pixels.to_float(given_image.read(place, size, channels))


def _sha256(array: np.ndarray | None) -> str | None:
    return None if array is None else hashlib.sha256(array.tobytes()).hexdigest()
