"""`ddgan sample`: which images, of which model, into which file."""

import functools
import hashlib
import sys
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import images
from ddgan_jax.config import has_points
from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import locks
from ddgan_jax.files.paths import user_path
from ddgan_jax.inference import drawing, export, given_image, writers
from ddgan_jax.inference.model import Model, from_run
from ddgan_jax.inference.places import place_of
from ddgan_jax.sampling import UNVARIED, Variation

MOST_IN_A_GRID = 10_000  # images


class Options(NamedTuple):
    """Which images to draw, beside their seeds.

    labels: every seed is drawn for each of them; none: they take turns. interpolate: so many images
    between each two neighbouring seeds. latent_seed: whose z all images get. image: a file from
    which the chain begins, at step `start`, None: half way. trajectory: each image with all steps
    before it.
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
) -> None:
    """Write images of a run folder or of an export to `out`: a grid (.png), or as `streaming`.

    step: of the run's checkpoint, None: the newest whole one. num_steps: of denoising, 0: those of
    the config. Raises UserError if there is no such model, it cannot do this, or `out` cannot be
    written; BusyError if another process is writing it.
    """
    place = place_of(out)
    model = open_model(workdir, export_dir, step).in_steps(num_steps)
    model.check_drawable()
    job = make_job(model, seeds, options)
    if place.form == ".png":
        if job.count > MOST_IN_A_GRID:
            raise UserError(
                f"{job.count:,} images do not fit into one picture, at most {MOST_IN_A_GRID:,}: "
                "name a folder or an .npz"
            )
        with locks.only_writer(place.path):
            drawn = drawing.concatenate(job.draw(np.arange(job.count)))
            columns = _columns(model, seeds, options)
            grid = images.picture(drawn.reshape(-1, *drawn.shape[-3:]), columns)
            images.write_png(place.path, grid)
    else:
        writers.write(job, out)
    print(f"{job.count} images of step {model.step} in {shown(out, 300)}")


def open_model(
    workdir: str | None, export_dir: str | None, step: int | None = None, kind: str = "ema"
) -> Model:
    """Return the model that the flags of a command name. Raises UserError unless it is exactly one.

    step, kind: of a run folder, see `model.from_run`.
    """
    if (workdir is None) == (export_dir is None):
        raise UserError("name one model, with `workdir=FOLDER` or with `export_dir=FOLDER`")
    if workdir is not None:
        return from_run(workdir, step, kind=kind, report=functools.partial(print, file=sys.stderr))
    if step is not None or kind != "ema":
        given = "`kind`" if step is None else "`step`"
        raise UserError(f"{given} belongs to `workdir`: an export holds one of each")
    return export.load(export_dir)


def make_job(model: Model, seeds: Sequence[int], options: Options) -> writers.Job:
    """Return what `streaming` is to write. Raises UserError for what the model cannot do."""
    config = model.config
    if options.interpolate:
        request, variation = _between(config, seeds, options)
    else:
        classes = config.data.num_classes
        request, variation = drawing.each_class(classes, seeds, options.labels), UNVARIED
    count = len(request.seeds)
    if options.latent_seed is not None:
        variation = variation._replace(latent_seeds=np.full(count, options.latent_seed, np.uint32))
    facts = request._asdict() | variation._asdict()
    if not config.data.num_classes:
        del facts["labels"]
    x_0 = _read_image(options.image, config) if options.image else None
    start = options.start
    if start is None:
        start = model.num_steps // 2 if options.image else 0
    is_image = not has_points(config)

    def draw(positions: np.ndarray) -> Iterator[np.ndarray]:
        chosen, varied = jax.tree.map(lambda a: a[positions], (request, variation))
        if x_0 is not None:
            varied = varied._replace(x_0=np.broadcast_to(x_0, (len(positions), *x_0.shape)))
        for drawn in model.draw(chosen, varied, start=start, trajectory=options.trajectory):
            steps = drawn.x_t if options.trajectory else drawn
            yield images.to_uint8(steps) if options.trajectory and is_image else steps

    return writers.Job(
        what={
            "model": model.sha256,
            **options._replace(image=_sha256(x_0), start=start)._asdict(),
        },
        count=count,
        names=functools.partial(_names, request, variation),
        facts={name: values for name, values in facts.items() if values is not None},
        draw=draw,
    )


def _between(
    config: ConfigDict, seeds: Sequence[int], options: Options
) -> tuple[drawing.Request, Variation]:
    """Return the request from each seed to the next one, both included, one pair after another."""
    if len(seeds) < 2:
        raise UserError("--interpolate needs two seeds or more")
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
    if options.trajectory:
        return model.num_steps - (options.start or 0)
    if options.interpolate:
        return options.interpolate + 2
    return len(seeds) if options.labels else None


def _names(request: drawing.Request, variation: Variation) -> list[str]:
    if variation.other_seeds is None:
        return drawing.names(request)
    ways = zip(request.labels, request.seeds, variation.other_seeds, variation.weights, strict=True)
    return [f"class{c:04d}_{a:06d}_{b:06d}_{weight:.4f}" for c, a, b, weight in ways]


def _read_image(path: str, config: ConfigDict) -> np.ndarray:
    """Return the image of a file, float32 (H, W, C) in [-1, 1], fitted as images for training."""
    if has_points(config):
        raise UserError("--image: this model draws points")
    place = user_path(path, "image")
    pixels = given_image.read(place, config.data.image_size, config.data.channels)
    return images.to_float(pixels)


def _sha256(array: np.ndarray | None) -> str | None:
    return None if array is None else hashlib.sha256(array.tobytes()).hexdigest()
