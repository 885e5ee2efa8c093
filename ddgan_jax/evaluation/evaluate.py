"""Score a model's images, or given ones, and say what each number depends on: `ddgan evaluate`.

Images go from the sampler to the feature network as they are drawn; what stays are sums, and the
features that KID, precision and recall need. The result is a table for people and a JSON file:

    {"metrics": {"fid_5000": ...}, "samples": {...}, "features": {...}, "reference": {...},
     "model": {...}, "sampling": {...}, "written_by": {...}}
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from ddgan_jax import data, progress
from ddgan_jax.config.files import from_dict
from ddgan_jax.data.selection import whole_split
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import compared, images_to_score, results
from ddgan_jax.evaluation.images_to_score import Source
from ddgan_jax.evaluation.scorer import Scorer, open_scorer
from ddgan_jax.files import locks
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.inference.load import open_model
from ddgan_jax.interop.inception import PUBLISHED_SHA256
from ddgan_jax.metrics import names
from ddgan_jax.metrics.statistics import SavedStatistics


class Options(NamedTuple):
    """The request of a user; empty strings and zeros stand for the defaults of the command.

    metrics: Keys of names.METRICS, none for all but modes. features, protocol, inception: As
    features.open_network takes them. num: The number of images. reference: A file of statistics.
    against: Real images, as they are. dataset, split, data_dir: Of the real images; without any of
    these those that the model was trained on. allow_small: Score fewer images than papers do. out:
    The JSON file.
    """

    metrics: Sequence[str]
    features: str = "inception"
    protocol: str = "tf1"
    inception: str = ""
    num: int = 0
    reference: str = ""
    against: str = ""
    dataset: str = ""
    split: str = ""
    data_dir: str = ""
    allow_small: bool = False
    out: str = ""


def evaluate_command(
    workdir: str | None,
    export_dir: str | None,
    images: str | None,
    options: Options,
    *,
    step: int | None = None,
    num_steps: int = 0,
    report: Callable[[str], None],
) -> None:
    """Score a run folder, an export or given images; print a table and write a JSON file.

    step: The step of the run's checkpoint, None for the newest whole one. num_steps: Denoising
    steps, 0 for the number in the config. report: Takes lines of progress. Raises UserError before
    any long work if something cannot be scored.
    """
    # Cheap checks come first: opening a model reads its parameters.
    _check_one_reference(options)
    if not options.metrics:
        default = compared.default_metrics(options.features, options.reference)
        options = options._replace(metrics=default)
    names.check(options.metrics, options.features)
    with progress.phase("opening the images" if images else "reading the model"):
        source = _open_source(workdir, export_dir, images, options, step, num_steps)
    names.check_count(options.metrics, source.count, allow_small=options.allow_small)
    # The place of the result is taken first: finding out after hours that it cannot be written
    # would cost the result.
    with _place_for(source, options) as out:
        result = evaluate(source, options, report=report)
        # JSON has no NaN, and other programs refuse a file with one.
        content = json.dumps(result, indent=2, allow_nan=False)
        write_atomically(out, f"{content}\n".encode())
    print(f"{results.table(result)}\nresult     {out}")


def _check_one_reference(options: Options) -> None:
    if options.against and options.reference:
        raise UserError("`against` and `reference` both name the real images: give one of them")
    if options.against and options.split:
        raise UserError("`split` is that of a data set, and `against` are images: leave one out")


def _open_source(
    workdir: str | None,
    export_dir: str | None,
    images: str | None,
    options: Options,
    step: int | None,
    num_steps: int,
) -> Source:
    real = {"dataset": options.dataset, "split": options.split, "data_dir": options.data_dir}
    if images is not None:
        if workdir is not None or export_dir is not None:
            raise UserError(
                "`images` are scored without a model: leave `workdir` and `export_dir` out"
            )
        return images_to_score.images_of(images, options.num, **real)
    model = open_model(workdir, export_dir, step).in_steps(num_steps)
    # As many images as the most demanding of the metrics has in papers.
    count = options.num or max(names.METRICS[name].published_count for name in options.metrics)
    folder = workdir or export_dir or ""
    return images_to_score.samples_of(model, folder, count, is_run=bool(workdir), **real)


def evaluate(source: Source, options: Options, *, report: Callable[[str], None]) -> dict[str, Any]:
    """Return the result, as in the module's docstring. report: Takes lines of progress."""
    path, against = options.against, None
    if path and options.features == "classifier" and source.data is None:
        raise UserError(
            "`features=classifier` learns the classes of a data set: name one with `dataset=NAME`, "
            "or take `features=pixels`"
        )
    if path:
        images = compared.open_against(path, source, options.metrics, options.features)
        against = (path, images)
    # Opened at most once, and only if something needs it: the metrics of given images may not.
    open_split = functools.cache(functools.partial(_open_split, source))
    with progress.phase("preparing the evaluation") as display:
        scorer = open_scorer(
            options.metrics,
            source.count,
            features=options.features,
            protocol=options.protocol,
            inception_file=options.inception,
            # A classifier learns from what the model has learnt from, and never from what is held
            # out.
            dataset=lambda: open_split(whole_split(_needed(source.data).data.split)),
            config=lambda: _needed(source.data),
            reference=lambda network: compared.statistics_of(
                source,
                network,
                options.metrics,
                file=options.reference,
                against=against,
                split=lambda: _needed(source.data).data.split,
                open_split=open_split,
                report=report,
            ),
            report=report,
        )
        # Before the scoring, since its network and its statistics would compete for the devices.
        display.phase("compiling the sampler and timing it")
        timing = source.sampling()
    result = {
        "metrics": scorer(source.read()),
        "samples": {
            "count": source.count,
            "images": source.name,
            "size": " x ".join(map(str, source.shape)),
            "comparable_with_published_numbers": _is_comparable(scorer),
        },
        "features": dict(scorer.network.identity),
        "reference": _about_reference(scorer.reference, options),
        "model": dict(source.model),
        "sampling": timing,
        "written_by": results.written_by(),
    }
    if scorer.digits is not None:
        result["modes"] = _about_modes(scorer.digits.about, source.count)
        # Modes alone come from the digit classifier, and no feature network had a part in them.
        if not names.needs_features(options.metrics):
            result["features"] = {"network": "digits", **result["modes"]["classifier"]}
    return result


def _about_modes(classifier: Mapping[str, Any], count: int) -> dict[str, Any]:
    used = names.used_count("modes", count)
    # Even a perfect sampler leaves this divergence from a uniform choice of modes, on average.
    floor = (names.NUM_MODES - 1) / (2 * used)
    facts = ("dataset", "accuracy", "held_out", "weights_sha256")
    about = {name: classifier[name] for name in facts}
    return {"count": used, "kl_floor": floor, "classifier": about}


def _is_comparable(scorer: Scorer) -> bool | None:
    """Return whether the numbers compare with published ones; None if nobody can know."""
    # Weights converted from another file than the published one give other features.
    published = scorer.network.identity.get("source_sha256") == PUBLISHED_SHA256
    if names.needs_features(scorer.metrics) and not published:
        return False
    # Published modes are those of MNIST's digits.
    if scorer.digits is not None and scorer.digits.about["dataset"] != "mnist":
        return False
    if any(scorer.count < names.METRICS[name].published_count for name in scorer.metrics):
        return False
    unknown = scorer.reference is not None and not scorer.reference.count
    return None if unknown else True


def _needed(data_config: ConfigDict | None) -> ConfigDict:
    if data_config is None:
        raise UserError(
            "`images` are compared with real ones: name their set with `dataset=NAME`, or images "
            "with `against=PATH`"
        )
    return data_config


def _open_split(source: Source, split: str) -> data.Dataset:
    config = from_dict(_needed(source.data).to_dict())
    config.data.split = split
    return data.open_dataset(config)


def _about_reference(real: SavedStatistics | None, options: Options) -> dict[str, Any] | None:
    if real is None:
        return None
    return {
        "dataset": real.provenance.dataset,
        # Published files do not tell how many images they are of.
        "count": real.count or None,
        "features_kept": len(real.features),
        "preprocessing": real.provenance.preprocessing,
        "preprocessing_known": bool(real.count),
        # The cache has no name that would mean anything to another user.
        "file": options.reference or None,
    }


@contextlib.contextmanager
def _place_for(source: Source, options: Options) -> Iterator[epath.Path]:
    """Yield the path of the result, locked against other writers; the file does not exist yet."""
    # A result that somebody has asked for by name is never written elsewhere, nor over another.
    if options.out:
        with locks.output_file(options.out, ".json", new=True) as out:
            yield out
        return
    # The name says what the numbers depend on, so that results of one model lie beside each other.
    network = options.features if names.needs_features(options.metrics) else "modes"
    protocol = f"_{options.protocol}" if network == "inception" else ""
    stem = f"{source.place.name}_{network}{protocol}_{source.count}"
    with results.new_file(source.place.parent, stem) as out:
        yield out
