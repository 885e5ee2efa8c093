"""`ddgan evaluate`: numbers of a model's images, or of given ones, with all that they depend on.

Images go from the sampler to the feature network as they are drawn; what stays are sums, and the
features that KID, precision and recall need. The result is a table for people and a JSON file:

    {"metrics": {"fid_5000": ...}, "samples": {...}, "features": {...}, "reference": {...},
     "model": {...}, "sampling": {...}, "written_by": {...}}
"""

import contextlib
import functools
import hashlib
import json
import os
import statistics as averages
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import data, distributed
from ddgan_jax.config.files import from_dict
from ddgan_jax.data import mixture
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import classifier, features, given, reference, results, scoring
from ddgan_jax.evaluation.features import FeatureNetwork
from ddgan_jax.files import locks
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.files.paths import is_bucket, run_folder_path, user_path
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import drawing, weights
from ddgan_jax.inference.model import Model
from ddgan_jax.inference.requests import open_model
from ddgan_jax.interop.inception import PUBLISHED_SHA256
from ddgan_jax.metrics import names, statistics
from ddgan_jax.metrics.statistics import SavedStatistics

FEWEST_KEPT = 10_000  # features of real images, if any are needed and there are so many
SECONDS_OF_TIMING = 10.0
MOST_TIMED_CALLS = 10


class Options(NamedTuple):
    """What is asked for. Empty strings and zeros stand for the defaults of the command.

    metrics: of names.METRICS. features, protocol, inception: see features.open_network. num: of
    images. reference: a file of statistics. dataset, split, data_dir: of the real images; without
    them those that the model was trained on. out: the JSON file.
    """

    metrics: Sequence[str]
    features: str = "inception"
    protocol: str = "tf1"
    inception: str = ""
    num: int = 0
    reference: str = ""
    dataset: str = ""
    split: str = ""
    data_dir: str = ""
    allow_small: bool = False
    out: str = ""


class Source(NamedTuple):
    """Images to be scored. name: in words. place: where results go by default, with a file stem.

    read: the images, uint8 chunks (n, H, W, C). data: a config that names the real ones, None: not
    known. model, sampling: of the result; the second is measured when it is called.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    place: Path
    read: Callable[[], Iterator[np.ndarray]]
    data: ConfigDict | None
    model: Mapping[str, Any]
    sampling: Callable[[], Mapping[str, Any] | None]


def evaluate_command(
    workdir: str | None,
    export_dir: str | None,
    images: str | None,
    options: Options,
    *,
    step: int | None = None,
    num_steps: int = 0,
) -> None:
    """Scores a run folder, an export or given images; prints a table and writes a JSON file.

    step: of the run's checkpoint, None: the newest whole one. num_steps: of denoising, 0: those of
    the config. Raises UserError for what cannot be scored, before anything long begins.
    """
    names.check(options.metrics, options.features)
    if images is not None:
        if workdir is not None or export_dir is not None:
            raise UserError("--images are scored without a model: leave --workdir and --export out")
        source = _given_images(images, options)
    else:
        model = open_model(workdir, export_dir, step).in_steps(num_steps)
        source = _samples(model, workdir or export_dir, workdir, options)
    names.check_count(options.metrics, source.count, allow_small=options.allow_small)
    with _place_for(source, options) as out:
        result = evaluate(source, options, report=functools.partial(print, file=sys.stderr))
        content = json.dumps(result, indent=2, allow_nan=False)
        write_atomically(out, f"{content}\n".encode())
    print(f"{results.table(result)}\nresult     {out}")


def evaluate(source: Source, options: Options, *, report: Callable[[str], None]) -> dict[str, Any]:
    """The result, as in the module's docstring. report: takes lines of progress."""
    asked = options.metrics
    open_dataset = functools.cache(lambda: data.open_dataset(_needed(source.data)))
    network = features.open_network(
        options.features if names.needs_features(asked) else "pixels",
        open_dataset,
        protocol=options.protocol,
        inception_file=options.inception,
        report=report,
    )
    digits = None
    if "modes" in asked:
        digits = classifier.of_stacked_digits(_needed(source.data), report)
    with_vectors = names.reads(asked, "vectors")
    real = None
    if names.needs_reference(asked):
        keep = max(source.count, FEWEST_KEPT) if with_vectors else 0
        real = _reference(source, options, network, open_dataset, keep, report)
    timing = source.sampling()
    fake = reference.gather(
        source.read(),
        network,
        total=source.count,
        keep=source.count if with_vectors else 0,
        logits=names.reads(asked, "logits"),
        label=digits and functools.partial(classifier.label_stacks, digits.params),
    )
    values = scoring.compute(asked, fake, real)
    full_names = names.value_names(asked, network.name, source.count)
    result = {
        "metrics": {full_names[plain]: values[plain] for plain in full_names},
        "samples": {
            "count": source.count,
            "images": source.name,
            "comparable_with_published_numbers": _comparable(options, network, source.count),
        },
        "features": dict(network.identity),
        "reference": _about_reference(real, options),
        "model": dict(source.model),
        "sampling": timing,
        "written_by": results.written_by(),
    }
    if digits:
        result["modes"] = _about_modes(digits.about, source.count)
        if not names.needs_features(asked):
            result["features"] = {"network": "digits", **result["modes"]["classifier"]}
    return result


def _about_modes(classifier: Mapping[str, Any], count: int) -> dict[str, Any]:
    used = names.used_count("modes", count)
    floor = (names.NUM_MODES - 1) / (2 * used)
    facts = ("dataset", "accuracy", "held_out", "weights_sha256")
    about = {name: classifier[name] for name in facts}
    return {"count": used, "kl_floor": floor, "classifier": about}


def _comparable(options: Options, network: FeatureNetwork, count: int) -> bool:
    published = network.identity.get("source_sha256") == PUBLISHED_SHA256
    if names.needs_features(options.metrics) and not published:
        return False
    return all(count >= names.METRICS[name].published_count for name in options.metrics)


def _needed(data_config: ConfigDict | None) -> ConfigDict:
    if data_config is None:
        raise UserError("--images are compared with real ones: name them with --dataset=NAME")
    return data_config


def _reference(
    source: Source,
    options: Options,
    network: FeatureNetwork,
    open_dataset: Callable[[], data.Dataset],
    keep: int,
    report: Callable[[str], None],
) -> SavedStatistics:
    """The statistics of the real images, comparable with ours. Raises UserError if they are not."""
    ours = features.provenance(network, source.name, reference.preprocessing(*source.shape))
    if options.reference:
        real = statistics.load(user_path(options.reference, "reference"))
    else:
        split = _needed(source.data).data.split
        real = reference.from_cache(open_dataset(), network, split=split, keep=keep, report=report)
    statistics.require_comparable(real.provenance, ours)
    needed = max((names.METRICS[n].fewest for n in options.metrics), default=0) if keep else 0
    if len(real.features) < needed:
        raise UserError(
            f"the reference keeps {len(real.features):,} features, {', '.join(options.metrics)} "
            f"need {needed:,}: make it again with a larger --keep"
        )
    return real


def _about_reference(real: SavedStatistics | None, options: Options) -> dict[str, Any] | None:
    if real is None:
        return None
    return {
        "dataset": real.provenance.dataset,
        "count": real.count,
        "features_kept": len(real.features),
        "preprocessing": real.provenance.preprocessing,
        "file": options.reference or None,
    }


# ------------------------------------------------------------------------------- what is scored


def _count(options: Options) -> int:
    return options.num or max(names.METRICS[name].published_count for name in options.metrics)


def _samples(model: Model, where: str, workdir: str | None, options: Options) -> Source:
    """The images of the seeds 0, 1, .. of a model; classes take turns."""
    if model.config.data.name in mixture.SETS:
        raise UserError("this model draws points: `ddgan experiment` scores those")
    config = from_dict(model.config.to_dict())
    if options.dataset:
        config.data.update(name=options.dataset, path="", split="train", max_examples=0)
    for field, value in (("split", options.split), ("dir", options.data_dir)):
        config.data[field] = value or config.data[field]
    count, size = _count(options), config.data.image_size
    local = workdir and not is_bucket(workdir)
    run = RunFolder.at(run_folder_path(workdir) if local else "")
    return Source(
        name=f"samples of {where}, step {model.step} ({model.kind})",
        count=count,
        shape=(size, size, config.data.channels),
        place=Path(run.evaluations) / f"step_{model.step}_in_{model.num_steps}",
        read=lambda: model.draw(model.request(range(count))),
        data=config,
        model={
            "folder": where,
            "step": model.step,
            "weights": model.kind,
            "sha256": hashlib.sha256(weights.to_safetensors(model.params)).hexdigest(),
        },
        sampling=functools.partial(time_sampling, model),
    )


def _given_images(path: str, options: Options) -> Source:
    images = given.open_images(path)
    count = min(images.count, options.num or images.count)
    config = None
    if options.dataset:
        size, _, channels = images.shape
        config = reference.data_config(
            options.dataset,
            split=options.split or "train",
            data_dir=options.data_dir,
            image_size=size,
            channels=channels,
        )

    def read() -> Iterator[np.ndarray]:
        left = count
        for chunk in images.read():
            yield chunk[:left]
            left -= len(chunk[:left])
            if not left:
                return

    return Source(
        name=f"images of {path}",
        count=count,
        shape=images.shape,
        place=Path(RunFolder.at("").evaluations) / _name_of(path),
        read=read,
        data=config,
        model={"images": path},
        sampling=lambda: None,
    )


def _name_of(path: str) -> str:
    """Return what results of images at a path are called: a folder's whole name, a file's stem."""
    place = Path(os.path.abspath(user_path(path, "images")))
    is_array = place.suffix in (".npy", ".npz") and not place.is_dir()
    return (place.stem if is_array else place.name) or "images"


def time_sampling(model: Model) -> dict[str, Any]:
    """Seconds for 100 images, from seeds to uint8 on the host: the median of some calls.

    A call draws what the compiled sampler takes at a time. The first one, which compiles, does not
    count; at most MOST_TIMED_CALLS or SECONDS_OF_TIMING are spent on the others.
    """
    devices = distributed.local_devices()
    batch = model.config.sampling.chunk_size * len(devices)
    request = model.request(range(batch))
    seconds: list[float] = []
    for number in range(MOST_TIMED_CALLS + 1):
        start = time.perf_counter()
        drawing.concatenate(model.draw(request))  # to the last image, on the host
        if number:
            seconds.append(time.perf_counter() - start)
        if sum(seconds) > SECONDS_OF_TIMING:
            break
    return {
        "denoising_steps": model.num_steps,
        "network_evaluations_per_image": model.num_steps,
        "seconds_per_100_images": averages.median(seconds) * 100 / batch,
        "images_per_call": batch,
        "timed_calls": len(seconds),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "compute_dtype": model.config.train.compute_dtype,
    }


@contextlib.contextmanager
def _place_for(source: Source, options: Options) -> Iterator[epath.Path]:
    """Give the file of the result, held against others; never one that is there already."""
    if options.out:
        with locks.output_file(options.out, ".json", new=True) as out:
            yield out
        return
    network = options.features if names.needs_features(options.metrics) else "modes"
    protocol = f"_{options.protocol}" if network == "inception" else ""
    stem = f"{source.place.name}_{network}{protocol}_{source.count}"
    with results.new_file(source.place.parent, stem) as out:
        yield out
