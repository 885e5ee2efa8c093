"""Declare the commands that score images: evaluate, reference, import inception."""

from typing import TYPE_CHECKING

from absl import flags

from ddgan_jax import compiler
from ddgan_jax.cli import messages
from ddgan_jax.cli.arguments import Flag, parse_config
from ddgan_jax.cli.command import (
    DATA_DIR,
    DENOISING_STEPS,
    EXPORT,
    FORCE,
    STEP,
    WORKDIR,
    Command,
    into_file,
)
from ddgan_jax.config import LARGEST_IMAGE, MOST_IMAGES
from ddgan_jax.errors import UserError
from ddgan_jax.files.locks import output_file
from ddgan_jax.metrics import names

if TYPE_CHECKING:
    from etils import epath

    from ddgan_jax.data import Dataset
    from ddgan_jax.evaluation.features import FeatureNetwork


def _evaluate(values: flags.FlagValues) -> None:
    compiler.keep_programs()
    # JAX and Flax are imported when the command runs, so that help pages and mistakes in flags show
    # at once.
    from ddgan_jax.evaluation.evaluate import Options, evaluate_command

    _check_network(values)
    evaluate_command(
        values.workdir,
        values.export,
        values.images,
        Options(
            metrics=values.metrics.split(",") if values.metrics else [],
            features=values.features,
            protocol=values.protocol,
            inception=values.inception,
            num=values.num or 0,
            reference=values.reference,
            against=values.against,
            dataset=values.dataset,
            split=values.split,
            data_dir=values.data_dir,
            allow_small=values.allow_small,
            out=values.out,
        ),
        step=values.step,
        num_steps=values.denoising_steps,
        report=messages.reporter(values),
    )


def _reference(values: flags.FlagValues, out: "epath.Path") -> None:
    compiler.keep_programs()
    _check_network(values)
    # Exactly one of them: a config would silently override the name, or the name the config.
    if sum(name is not None for name in (values.dataset, values.config, values.images)) != 1:
        raise UserError(
            "name one data set, with --dataset=NAME or with --config=FILE, or --images=PATH"
        )
    from ddgan_jax.evaluation import given, reference

    if values.images is not None:
        _check_as_given(values)
        images = given.open_images(values.images)
        network = _network(values, None)
        made = reference.write_images(images, values.images, network, out, keep=values.keep)
    else:
        dataset, split = _open_set(values)
        network = _network(values, dataset)
        made = reference.write(dataset, network, out, split=split, num=values.num, keep=values.keep)
    print(
        f"{made.provenance.dataset}: {made.count:,} images, {len(made.features):,} features kept, "
        f"in {out}"
    )


def _check_as_given(values: flags.FlagValues) -> None:
    if values.features == "classifier":
        raise UserError("--features=classifier is trained on a data set, and --images are none")
    for name in ("split", "num", "image_size", "channels", "data_dir"):
        if values[name].value:
            raise UserError(f"--{name} is for a data set: --images are taken as they are")


def _open_set(values: flags.FlagValues) -> "tuple[Dataset, str]":
    """Return the data set that the flags name, and its split."""
    from ddgan_jax import data
    from ddgan_jax.data import selection
    from ddgan_jax.evaluation import reference

    if values.config is not None:
        config = parse_config(values.config, [])
        # A flag that is given comes before the field of the config.
        config.data.split = selection.chosen_split(values.split, config.data.split)
        config.data.dir = values.data_dir or config.data.dir
    else:
        config = reference.data_config(
            values.dataset,
            split=values.split or "train",
            data_dir=values.data_dir,
            image_size=values.image_size,
            channels=values.channels,
        )
    return data.open_dataset(config), config.data.split


def _network(values: flags.FlagValues, dataset: "Dataset | None") -> "FeatureNetwork":
    from ddgan_jax.evaluation import features

    def opened() -> "Dataset":
        # Only a classifier asks for a data set, and it is not made without one.
        if dataset is None:
            raise ValueError("there is no data set")
        return dataset

    return features.open_network(
        values.features,
        opened,
        protocol=values.protocol,
        inception_file=values.inception,
        report=print,
    )


def _check_network(values: flags.FlagValues) -> None:
    from ddgan_jax.cli.arguments import parse_names

    # parse_names takes a list of names, for its suggestions of the nearest one.
    if len(parse_names("features", values.features, names.FEATURES)) > 1:
        raise UserError(f"--features={values.features}: one at a time")
    parse_names("protocol", values.protocol, names.PROTOCOLS)


def _import_inception(values: flags.FlagValues) -> None:
    from ddgan_jax.evaluation.features import default_inception_file
    from ddgan_jax.interop.inception import convert

    place = values.out or default_inception_file()
    with output_file(place, ".npz", force=values.force) as out:
        # "from" is a keyword of Python and cannot be written as an attribute.
        convert(getattr(values, "from"), out)
        print(f"the FID Inception network in {out}")


_NETWORK_FLAGS = (
    Flag(
        "features",
        "NETWORK",
        "inception (published numbers), classifier or pixels",
        "inception",
    ),
    Flag(
        "protocol",
        "NAME",
        "for inception: tf1, or pytorch_fid as in the DDGAN paper",
        "tf1",
    ),
    Flag(
        "inception",
        "FILE",
        "of `ddgan import inception`; without it the one in the cache folder",
        "",
    ),
)

COMMANDS = {
    "evaluate": Command(
        summary="FID, IS, KID, precision and recall of a model, or of given images",
        description=(
            "Draw images from a run folder or an export, straight into the feature network, and\n"
            "compare them with those that the model was trained on; or score given images. Prints\n"
            "a table and writes a JSON file in which every number says what it depends on. The\n"
            "names fid, is and kid are those of Inception features, whose weights `ddgan import\n"
            "inception` brings in once. Without them there are frechet, score and kernel: of\n"
            "--features=classifier, which is trained on the data set at first use, or of\n"
            "--features=pixels."
        ),
        flags=(
            WORKDIR,
            EXPORT,
            Flag("images", "PATH", "instead of a model: a folder, .zip, .npy or .npz of images"),
            Flag("against", "PATH", "real images of the same kinds, instead of a data set", ""),
            Flag(
                "metrics",
                "LIST",
                "fid,is,kid or frechet,score,kernel; prdc; modes; without it all but modes",
                "",
            ),
            *_NETWORK_FLAGS,
            Flag(
                "num",
                "N",
                "images to draw; without it 50000 (26000 for modes alone)",
                kind="integer",
                at_least=1,
                at_most=MOST_IMAGES,
            ),
            Flag(
                "allow_small", "", "accept fewer images; the numbers' names say so", False, "switch"
            ),
            STEP,
            DENOISING_STEPS,
            Flag(
                "reference",
                "FILE",
                "of `ddgan reference`, or published mu and sigma; without it made, and kept",
                "",
            ),
            Flag(
                "dataset",
                "NAME",
                "real images; without it the set that the model was trained on",
                "",
            ),
            Flag(
                "split",
                "SPLIT",
                "split of the data set, or holdout; without it the one of the training",
                "",
            ),
            DATA_DIR,
            Flag("out", "FILE", "the JSON file; without it in WORKDIR/evaluations", ""),
        ),
        examples=(
            "ddgan evaluate --workdir=runs/cifar10",
            "ddgan evaluate --workdir=runs/digits --features=classifier --num=2000 --allow-small",
            "ddgan evaluate --images=samples.npz --dataset=cifar10 --metrics=fid,prdc",
            "ddgan evaluate --images=samples/ --against=photos/ --metrics=fid --allow-small",
        ),
        run=_evaluate,
    ),
    "reference": Command(
        summary="statistics of real images, for `evaluate`",
        description=(
            "Compute the mean and covariance of the features of a data set, with the training\n"
            "preprocessing and without mirroring, or of --images as they are, and say in the file\n"
            "what they were made from."
        ),
        flags=(
            Flag("out", "FILE", "the .npz file", required=True),
            Flag("dataset", "NAME", "name of the data set"),
            Flag("config", "NAME[:ARGUMENT]", "instead: the data set of a config"),
            Flag("images", "PATH", "instead: a folder, .zip, .npy or .npz of images"),
            *_NETWORK_FLAGS,
            Flag("split", "SPLIT", "e.g. train or test; without it train, or that of --config", ""),
            Flag("num", "N", "images, chosen at random; 0: all", 0, "integer"),
            Flag(
                "keep",
                "N",
                "features kept for kid, kernel and prdc",
                50_000,
                "integer",
            ),
            Flag(
                "image_size",
                "N",
                "pixels; 0: as in the data set",
                0,
                "integer",
                at_most=LARGEST_IMAGE,
            ),
            Flag("channels", "N", "1 or 3; 0: as in the data set", 0, "integer", at_most=3),
            DATA_DIR,
            FORCE,
        ),
        examples=(
            "ddgan reference --dataset=cifar10 --out=cifar10_train.npz",
            "ddgan reference --config=celebahq256_ddgan --protocol=pytorch_fid \\\n"
            "    --out=celebahq256.npz",
        ),
        run=into_file(_reference, ".npz"),
    ),
    "import inception": Command(
        summary="bring in the Inception network of the FID",
        description=(
            "Convert the published weights to a file that this program reads. Fetch them from\n"
            f"{names.INCEPTION_URL}\n"
            "(96 MB). Neither PyTorch nor TensorFlow is needed."
        ),
        flags=(
            Flag("from", "FILE", "the published .pth, or an .npz of its state dict", required=True),
            Flag(
                "out", "FILE", "the converted .npz; without it the place where `evaluate` looks", ""
            ),
            FORCE,
        ),
        examples=("ddgan import inception --from=pt_inception-2015-12-05-6726825d.pth",),
        run=_import_inception,
    ),
}
