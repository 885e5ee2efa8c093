"""Read, check and print result files of `ddgan evaluate`, and find a free name for a new one."""

import contextlib
import datetime
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from etils import epath

import ddgan_jax
from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.files import foreign, locks

# Bytes of a result file; a larger one is some other file.
LARGEST_RESULT = 2**20

# The bound keeps sums and differences of such numbers finite, so that charts can place them.
Number = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Count = Annotated[int, msgspec.Meta(ge=0)]
# Facts are shown as they are and never computed with.
Facts = dict[str, str | int | float | bool | None]


class Samples(msgspec.Struct):
    """The images that were scored."""

    count: Count | None = None
    images: str = ""
    size: str = ""
    comparable_with_published_numbers: bool | None = None


class Sampling(msgspec.Struct):
    """The cost of drawing the images. The resolution of a clock bounds the seconds from below."""

    seconds_per_100_images: Annotated[float, msgspec.Meta(ge=1e-9, le=1e12)]
    denoising_steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    network_evaluations_per_image: Count | None = None
    images_per_call: Count | None = None
    timed_calls: Count | None = None
    device: str = ""
    compute_dtype: str = ""
    matmul_precision: str = ""


class Scored(msgspec.Struct):
    """The model that drew the images, or the place of given images."""

    folder: str = ""
    step: Count | None = None
    weights: str = ""
    sha256: str = ""
    images: str = ""


class Modes(msgspec.Struct):
    """The classifier and the count that the numbers of modes depend on."""

    count: Count | None = None
    kl_floor: Number | None = None
    classifier: Facts = {}


class Result(msgspec.Struct):
    """A result file."""

    metrics: Annotated[dict[str, Number], msgspec.Meta(min_length=1)]
    samples: Samples | None = None
    features: Facts | None = None
    reference: Facts | None = None
    model: Scored | None = None
    sampling: Sampling | None = None
    modes: Modes | None = None
    written_by: Facts | None = None


def read(path: str | os.PathLike) -> Result:
    """Read a result file. Raises UserError, which names the field, for anything else."""
    content = foreign.read_bytes(path, "result file", most=LARGEST_RESULT)
    try:
        return foreign.decode_json(content, Result, source=path)
    except UserError as error:
        raise UserError(f"{error}: it is no result file of `ddgan evaluate`") from error


@contextlib.contextmanager
def new_file(folder: Path, stem: str) -> Iterator[epath.Path]:
    """Yield the first free path of STEM.json, STEM_2.json, ..., locked against other writers.

    The folder is made, and removed again if nothing was written into it. Raises UserError if it
    cannot be written.
    """
    is_new = not folder.exists()
    with contextlib.ExitStack() as lock:
        numbers = itertools.count(2)
        path = epath.Path(folder / f"{stem}.json")
        # Two evaluations of one model may run at the same time; each gets a name of its own.
        while not _is_ours(path, lock):
            path = epath.Path(folder / f"{stem}_{next(numbers)}.json")
        try:
            yield path
        finally:
            lock.close()
            if is_new:
                # A folder that is not empty cannot be removed, and must not be.
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _is_ours(path: epath.Path, lock: contextlib.ExitStack) -> bool:
    """Take the lock of a file that is not there yet; return whether that was possible."""
    try:
        # Without waiting: the next name will do as well.
        lock.enter_context(locks.only_writer(path, patience=0))
    # Another evaluation will put its result there.
    except BusyError:
        return False
    # The lock only says that nobody is writing: a result of an earlier time may lie there.
    if path.exists():
        lock.close()
        return False
    return True


def written_by() -> dict[str, str]:
    """Return the versions of this program and of JAX, and the time."""
    # Reading results needs no JAX, so that it is imported here.
    import jax

    return {
        "ddgan_jax": ddgan_jax.__version__,
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def table(result: Mapping[str, Any]) -> str:
    """Return a result as text: a line for each number, then everything that they depend on."""
    values = result["metrics"]
    lines = []
    for name, value in values.items():
        # A standard deviation stands in the line of its number.
        if "_std" not in name:
            lines.append(f"{name:<26} {_shown(name, value)}{_spread(name, values)}")
    lines += ["", f"samples    {result['samples']['count']:,} {result['samples']['images']}"]
    if "sha256" in result["model"]:
        lines.append(f"           parameters sha256 {result['model']['sha256'][:16]}")
    lines.append(f"features   {_feature_line(result['features'])}")
    if real := result["reference"]:
        kept = f", {real['features_kept']:,} features kept" if real["features_kept"] else ""
        count = "unknown number of" if real["count"] is None else f"{real['count']:,}"
        lines.append(f"reference  {real['dataset']}: {count} images{kept}")
        lines.append(f"           {real['preprocessing']}{_resized(result)}")
    if modes := result.get("modes"):
        lines.append(
            f"modes      of 1,000; a perfect sampler's KL is {modes['kl_floor']:.4f}; accuracy of "
            f"the digit classifier {modes['classifier']['accuracy']:.2%}"
        )
    if sampling := result["sampling"]:
        lines.append(
            f"sampling   {sampling['network_evaluations_per_image']} network evaluations an image, "
            f"{sampling['seconds_per_100_images']:.3g} s for 100 images on {sampling['device']}"
        )
    comparable = result["samples"]["comparable_with_published_numbers"]
    if comparable is None:
        lines.append("note       comparable with published numbers if they are of this reference")
    elif not comparable:
        lines.append("note       not comparable with published numbers")
    return "\n".join(lines)


def _resized(result: Mapping[str, Any]) -> str:
    """Return what is done with two sets of images of different sizes that somebody gives."""
    theirs, _, given = result["reference"]["preprocessing"].partition(":")
    ours = result["samples"].get("size", theirs)
    if given != " as given" or ours == theirs:
        return ""
    return f", and the samples are {ours}; each is resized to 299 x 299, as in pytorch-fid"


def _shown(name: str, value: float) -> str:
    # The Frechet distance of equal sets is 0 up to rounding, on either side. A kernel distance may
    # honestly be negative, since its estimate is unbiased.
    return f"{max(value, 0.0) if name.startswith(('fid', 'frechet')) else value:.5g}"


def _spread(name: str, values: Mapping[str, float]) -> str:
    kind, _, rest = name.partition("_")
    std = values.get("_".join(filter(None, (kind, "std", rest))))
    return "" if std is None else f" +- {std:.2g}"


def _feature_line(identity: Mapping[str, Any]) -> str:
    parts = [identity["network"]]
    if "protocol" in identity:
        parts.append(f"protocol {identity['protocol']}")
    if "accuracy" in identity:
        parts.append(f"trained on {identity['dataset']}, accuracy {identity['accuracy']:.2%}")
    if "weights_sha256" in identity:
        parts.append(f"weights sha256 {identity['weights_sha256'][:16]}")
    return ", ".join(parts)
