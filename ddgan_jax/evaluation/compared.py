"""Open the statistics of the real images that generated ones are compared with, by who names them.

    a data set        computed once and kept in the cache folder
    images            `against`: a folder, an archive or arrays, as they are
    a file            of `ddgan reference`, which says what it was made from
    a published file  mu and sigma alone: what they were made from is not known

Statistics of another network, protocol or preprocessing are refused. Sets of images that a user
gives are compared as they are. Inception resizes each of them to 299 x 299 pixels, whatever its
size, as pytorch-fid does; other features are of images of one size.
"""

from collections.abc import Callable, Sequence

from ddgan_jax.data import Dataset
from ddgan_jax.errors import UserError, shown
from ddgan_jax.evaluation import given, reference
from ddgan_jax.evaluation.features import FeatureNetwork, provenance
from ddgan_jax.evaluation.given import Given
from ddgan_jax.evaluation.images_to_score import Source
from ddgan_jax.files.paths import user_path
from ddgan_jax.metrics import names, published, statistics
from ddgan_jax.metrics.statistics import SavedStatistics

# Features of real images that are kept, if any are needed and there are so many. All evaluations of
# fewer images then share one file of the cache.
FEWEST_KEPT = 10_000


def default_metrics(features: str, reference_file: str) -> list[str]:
    """Return the metrics of these features; without those that a published file has no data for."""
    asked = names.of_features(features)
    if reference_file and published.is_published(reference_file):
        return [name for name in asked if not names.reads([name], "vectors")]
    return asked


def open_against(path: str, source: Source, metrics: Sequence[str], features: str) -> Given:
    """Return the images at `path`, with which those of `source` are compared.

    Raises UserError if they cannot be, or are too few.
    """
    images = given.open_images(path, "against")
    if features != "inception" and images.shape != source.shape:
        ours, theirs = (" x ".join(map(str, shape)) for shape in (source.shape, images.shape))
        raise UserError(
            f"`against={shown(path)}` are images of {theirs}, and {source.name} are of {ours}: "
            f"features of {features} compare images of one size and as many channels"
        )
    if names.needs_reference(metrics):
        fewest = max(names.METRICS[m].fewest for m in metrics if names.needs_reference([m]))
        if images.count < fewest:
            raise UserError(
                f"`against={shown(path)}` has {images.count:,} images, {', '.join(metrics)} need "
                f"{fewest:,}"
            )
    return images


def statistics_of(
    source: Source,
    network: FeatureNetwork,
    metrics: Sequence[str],
    *,
    file: str,
    against: tuple[str, Given] | None,
    split: Callable[[], str],
    open_split: Callable[[str], Dataset],
    report: Callable[[str], None],
) -> SavedStatistics:
    """Return the statistics of the real images for these metrics.

    file: A file of statistics, "" for none. against: Given images, with their name. split: Names
    the split of the data set, where there is neither. Raises UserError for statistics that are not
    comparable, or keep too little.
    """
    with_vectors = names.reads(metrics, "vectors")
    keep = max(source.count, FEWEST_KEPT) if with_vectors else 0
    if against:
        path, images = against
        return reference.of_images(images, path, network, keep=keep)
    if file and published.is_published(file):
        return _published(file, network, metrics)
    if file:
        real = statistics.load(user_path(file, "reference"))
    else:
        name = split()
        real = reference.from_cache(open_split(name), network, split=name, keep=keep, report=report)
    _check_comparable(real, source, network)
    # A file of statistics may keep fewer features than the metrics need; the cache never does.
    fewest = max(names.METRICS[name].fewest for name in metrics) if with_vectors else 0
    if len(real.features) < fewest:
        raise UserError(
            f"the reference keeps {len(real.features):,} features, {', '.join(metrics)} "
            f"need {fewest:,}: make it again with a larger `keep`"
        )
    return real


def _published(file: str, network: FeatureNetwork, metrics: Sequence[str]) -> SavedStatistics:
    if network.name != "inception":
        raise UserError(
            f"`reference={shown(file)}` holds mu and sigma alone, which are of Inception features "
            f"in published files: it cannot be compared with features of {network.name}"
        )
    wanting = [name for name in metrics if names.reads([name], "vectors")]
    if wanting:
        raise UserError(
            f"`reference={shown(file)}` holds mu and sigma alone: {', '.join(wanting)} compare "
            "single images, name `against=IMAGES` for these"
        )
    return published.load(file, str(network.identity["protocol"]))


def _check_comparable(real: SavedStatistics, source: Source, network: FeatureNetwork) -> None:
    made = real.provenance.preprocessing
    ours = reference.preprocessing(*source.shape)
    if made.endswith(reference.AS_GIVEN):
        # Inception resizes every image, and what it was before does not matter.
        same = network.name == "inception"
        ours = made if same else reference.as_given(*source.shape)
    statistics.require_comparable(real.provenance, provenance(network, source.name, ours))
