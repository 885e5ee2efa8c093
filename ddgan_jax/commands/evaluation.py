"""Numbers: the feature network of the FID."""

from absl import flags

from ddgan_jax.arguments import Flag
from ddgan_jax.commands.command import Command


def _import_inception(values: flags.FlagValues) -> None:
    from ddgan_jax.interop.inception import convert

    convert(values["from"].value, values.out)
    print(f"the FID Inception network in {values.out}")


COMMANDS = {
    "import inception": Command(
        summary="bring in the Inception network of the FID",
        description=(
            "Convert the published weights (pt_inception-2015-12-05-6726825d.pth) to a file that\n"
            "needs no PyTorch. It takes PyTorch once: pip install 'ddgan-jax[torch]'."
        ),
        flags=(
            Flag("from", "FILE", "the published .pth, or an .npz of its state dict", required=True),
            Flag("out", "FILE", "the converted .npz", required=True),
        ),
        examples=(
            "ddgan import inception --from=pt_inception-2015-12-05-6726825d.pth \\\n"
            "    --out=inception.npz",
        ),
        run=_import_inception,
    ),
}
