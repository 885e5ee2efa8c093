"""Declare the commands that make data sets ready: prepare."""

import shlex
from typing import TYPE_CHECKING, Any

from absl import flags

from ddgan_jax.cli import messages
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.cli.command import DATA_DIR, Command

if TYPE_CHECKING:
    from pathlib import Path


def _prepare(values: flags.FlagValues) -> None:
    from ddgan_jax.data.prepare.prepare import prepare

    folder = prepare(
        values.dataset,
        data_dir=values.data_dir,
        archive=values.archive,
        images=values.images,
        arrays=values.arrays,
        parquet=values.parquet,
        download=values.download,
        allow_unpublished=values.allow_unpublished,
        warn=messages.reporter(values),
    )
    print(f"prepared in {folder}")
    command = _training(values, folder)
    if "=folder_ddgan" in command:
        print("training on photos is a GPU's work: on a CPU try folder_ddgan:tiny first")
    print(f"train on it: {command}")


# The smallest config that shows what a set is for, by the set's name.
_CONFIGS = {
    "cifar10": "cifar10_ddgan",
    "mnist": "mnist_ddgan",
    "digits": "digits_ddgan",
    "stl10": "stl10_ddgan",
    "celeb_a_hq/256": "celebahq256_ddgan",
    "celeb_a_hq/512": "celebahq512_wavediff",
    "celeb_a_hq/1024": "celebahq1024_wavediff",
    "lsun/church_outdoor": "lsun_church256_ddgan",
    "imagenet_resized/64x64": "imagenet64_siddm",
}


def _training(values: flags.FlagValues, folder: "Path") -> str:
    """Return the command that trains on a prepared set."""
    name = values.dataset.split(":")[0]
    given = [f"--config={_CONFIGS[name]}"] if name in _CONFIGS else _own_set(name, folder)
    if values.data_dir:
        given.append(f"--config.data.dir={shlex.quote(values.data_dir)}")
    short = name.replace("/", "_")
    return " ".join(["ddgan train", *given, f"--workdir=runs/{short}"])


def _own_set(name: str, folder: "Path") -> list[str]:
    """Return the flags of folder_ddgan for the images of a set: their size, colours and split."""
    from ddgan_jax.data import catalog, prepared

    builder = prepared.open_prepared(folder)
    # Sets of TFDS may call their images otherwise; they are in colour as a rule.
    features = catalog.features_of(builder)
    shape: Any = features["image"].shape if "image" in features else (None, None, 3)
    side = prepared.metadata(folder).median_side or min(shape[0] or 64, shape[1] or 64)
    given = [f"--config=folder_ddgan:{64 if side >= 64 else 32}", f"--config.data.name={name}"]
    if side < 32:
        given.append("--config.data.resize=up")
    if shape[2] == 1:
        given.append("--config.data.channels=1")
    if "train" not in builder.info.splits:
        given.append(f"--config.data.split={next(iter(builder.info.splits))}")
    return given


COMMANDS = {
    "prepare": Command(
        summary="make a data set ready for training",
        description=(
            "Convert a data set to the form that training reads: CIFAR-10 and MNIST from their\n"
            "published archives, a set of your own from a folder of images, in which train, val\n"
            "and test are splits, or from an .npz or Parquet file. Every other set of TFDS is\n"
            "converted by TFDS itself, which needs TensorFlow: pip install 'ddgan-jax[tf]'. What\n"
            "exists is never overwritten."
        ),
        flags=(
            Flag(
                "dataset",
                "NAME",
                "name of the set: cifar10, mnist, any of TFDS, or your own",
                required=True,
            ),
            DATA_DIR,
            Flag("archive", "PATH", "published archive of cifar10 or mnist"),
            Flag(
                "images",
                "FOLDER",
                "folder or .zip of image files; sub-folders or dataset.json label them",
            ),
            Flag(
                "arrays",
                "FILE",
                ".npz or .npy file of uint8 images (N, H, W, C), with labels (N,) or without",
            ),
            Flag(
                "parquet",
                "PATH",
                "Parquet or Arrow file of images, or a folder of them (Hugging Face datasets)",
            ),
            Flag(
                "download",
                "",
                "fetch the archive of cifar10 or mnist from its publisher",
                False,
                "switch",
            ),
            Flag(
                "allow_unpublished",
                "",
                "use an --archive that is not the published one",
                False,
                "switch",
            ),
        ),
        examples=(
            "ddgan prepare --dataset=cifar10 --archive=cifar-10-python.tar.gz",
            "ddgan prepare --dataset=flowers --images=photos/flowers",
        ),
        run=_prepare,
    ),
}
