"""Declare the commands that make data sets ready: prepare."""

from absl import flags

from ddgan_jax.cli import messages
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.cli.command import DATA_DIR, Command


def _prepare(values: flags.FlagValues) -> None:
    from ddgan_jax.data.prepare.prepare import prepare

    folder = prepare(
        values.dataset,
        data_dir=values.data_dir,
        archive=values.archive,
        images=values.images,
        arrays=values.arrays,
        download=values.download,
        allow_unpublished=values.allow_unpublished,
        warn=messages.reporter(values),
    )
    print(f"prepared in {folder}")


COMMANDS = {
    "prepare": Command(
        summary="make a data set ready for training",
        description=(
            "Convert a data set to the form that training reads: CIFAR-10 and MNIST from their\n"
            "published archives, a set of your own from a folder of images, in which train, val\n"
            "and test are splits, or from an .npz file. Every other set of TFDS is converted by\n"
            "TFDS itself, which needs TensorFlow: pip install 'ddgan-jax[tf]'. What exists is\n"
            "never overwritten."
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
            "ddgan prepare --dataset=flowers --images=photos/flowers --data_dir=/data/tfds",
        ),
        run=_prepare,
    ),
}
