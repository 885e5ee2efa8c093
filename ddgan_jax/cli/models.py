"""Declare the commands on trained models: sample, export, import nvlabs, import wavediff."""

from collections.abc import Callable

from absl import flags

from ddgan_jax import compiler, progress
from ddgan_jax.cli.arguments import Flag, parse_labels, parse_names, parse_seeds
from ddgan_jax.cli.command import DENOISING_STEPS, EXPORT, FORCE, STEP, WORKDIR, Command
from ddgan_jax.config import MOST_IMAGES, MOST_TIMESTEPS
from ddgan_jax.errors import UserError, shown


def _sample(values: flags.FlagValues) -> None:
    compiler.keep_programs()
    # --seeds has a default, so that only absl's `present` says whether the user has given it.
    if values.num is not None and values["seeds"].present:
        raise UserError("--num=N is short for --seeds=0-(N-1): give one of them")
    seeds = parse_seeds(values.seeds) if values.num is None else range(values.num)
    labels = parse_labels(values.labels)
    # The flags are read above, so that a mistake in them shows before these imports.
    from ddgan_jax.inference.requests import Options, sample_command

    captions = None
    if values.caption:
        from ddgan_jax.viz.sample_grid import captions

    sample_command(
        values.workdir,
        values.export,
        seeds=seeds,
        out=values.out,
        options=Options(
            labels=labels,
            interpolate=values.interpolate,
            latent_seed=values.latent_seed,
            image=values.image,
            start=values.start,
            trajectory=values.trajectory,
        ),
        step=values.step,
        num_steps=values.denoising_steps,
        captions=captions,
        force=values.force,
    )


def _export(values: flags.FlagValues) -> None:
    compiler.keep_programs()
    if bool(values.out) == bool(values.push):
        raise UserError("name one place, with --out=FOLDER or with --push=hf://user/name")
    if values.private and not values.push:
        raise UserError("--private belongs to --push: it says who sees the repository")
    if values.force and values.push:
        raise UserError("--force belongs to --out: a repository keeps what was there before")
    seeds = parse_seeds(values.seeds, most=10_000)
    (kind,) = parse_names("weights", values.weights, ("ema", "raw"))
    from ddgan_jax.inference import export, hub
    from ddgan_jax.inference.load import open_model

    if values.push:
        hub.repository(values.push, "push")
    with progress.phase("reading the model"):
        model = open_model(values.workdir, values.export, values.step, kind)
    # Networks whose time embedding is not defined at t = 0 can be exported, but not sampled.
    said = f"; no image can be drawn from it: {why}" if (why := model.why_not_drawable) else ""
    # 0 stands for the config's own size, which `with_sampling` would take literally.
    model = model.with_sampling(chunk_size=values.chunk_size) if values.chunk_size else model
    options = {
        "dtype": values.dtype,
        "sampler_weights": values.sampler_weights,
        "grid_seeds": seeds,
        "licence": values.licence,
    }
    if values.push:
        export.push(model, values.push, private=values.private, **options)
    else:
        export.write(model, values.out, force=values.force, **options)
    place = values.push or values.out
    print(f"step {model.step} in {shown(place, 300)}; see README.md there{said}")


def _import_from(program: str) -> Callable[[flags.FlagValues], None]:
    """Return the function that imports a checkpoint of one of `nvlabs_programs.PROGRAMS`."""

    def import_checkpoint(values: flags.FlagValues) -> None:
        compiler.keep_programs()
        from ddgan_jax.interop.nvlabs_checkpoints import import_command
        from ddgan_jax.interop.nvlabs_programs import PROGRAMS

        with progress.phase("converting the checkpoint"):
            import_command(
                values.checkpoint,
                values.out,
                program=PROGRAMS[program],
                args=values.args,
                data=values.data,
                licence=values.licence,
            )

    return import_checkpoint


def _import_flags(published: str) -> tuple[Flag, ...]:
    """Return the flags of an import. published: the names that its --args knows."""
    return (
        Flag("checkpoint", "FILE", "netG_*.pth or content.pth", required=True),
        Flag("out", "FOLDER", "the export or run folder, which must not exist", required=True),
        Flag("args", "NAME", f"options: {published} or a JSON file, for netG_*.pth", ""),
        Flag("data", "NAME", "data set to train on; without it the one that the options name", ""),
        Flag("licence", "TEXT", "licence of the weights, for the model card", ""),
    )


COMMANDS = {
    "sample": Command(
        summary="draw images from a trained model",
        description=(
            "Draw images from a run folder, with the moving average of the generator's\n"
            "parameters, or from an export. Each image has a seed: the same seed is the same\n"
            "image, however many are drawn and on whatever devices. Arrays are uint8 of shape\n"
            "(images, height, width, channels). All but a grid is written as it is drawn, in\n"
            "little memory; the same command again goes on where it was interrupted."
        ),
        flags=(
            WORKDIR,
            EXPORT,
            Flag("seeds", "LIST", "one image per seed, e.g. 0-63 or 1,5,10-20", "0-63"),
            Flag(
                "num",
                "N",
                "the seeds 0 to N - 1",
                kind="integer",
                at_least=1,
                at_most=MOST_IMAGES,
            ),
            Flag(
                "labels",
                "LIST",
                "classes, each with every seed: 207,88 or all; without it they take turns",
                "",
            ),
            Flag(
                "out",
                "PATH",
                "grid .png, or .npz, .npy, .array_record, folder of PNGs",
                "grid.png",
            ),
            STEP,
            DENOISING_STEPS,
            Flag(
                "interpolate",
                "N",
                "images between each two neighbouring seeds",
                0,
                "integer",
                at_most=10_000,
            ),
            Flag("latent_seed", "N", "all images get the latents z of this seed", kind="integer"),
            Flag("image", "FILE", "begin with this image, made noisy, instead of with noise"),
            Flag(
                "start",
                "N",
                "step at which --image enters, 0 to T - 1; without it half way",
                kind="integer",
                at_most=MOST_TIMESTEPS - 1,
            ),
            Flag("trajectory", "", "show the result of each denoising step", False, "switch"),
            Flag("caption", "", "a grid with words: seeds, classes, steps", False, "switch"),
            FORCE,
        ),
        examples=(
            "ddgan sample --export=digits --out=grid.png",
            "ddgan sample --workdir=runs/digits --seeds=0-99 --out=grid.png",
            "ddgan sample --workdir=runs/cifar10 --num=50000 --out=samples.npz --step=300000",
            "ddgan sample --export=exports/digits --seeds=3,7 --interpolate=6 --out=between.png",
        ),
        run=_sample,
        when_interrupted="the same command goes on where this one stopped",
    ),
    "export": Command(
        summary="write a trained model as files that outlive this program",
        description=(
            "Write the generator of a run folder as model.safetensors and config.json, which\n"
            "numpy reads, as sampler.stablehlo, which draws images with nothing but JAX on CPU,\n"
            "NVIDIA GPU or TPU, and a model card. The folder appears whole or not at all."
        ),
        flags=(
            Flag("out", "FOLDER", "the export, which must not exist", ""),
            Flag(
                "push", "hf://NAME", "instead: a repository user/name of the Hugging Face hub", ""
            ),
            Flag("private", "", "with --push: only you see the repository", False, "switch"),
            WORKDIR,
            Flag(
                "export", "FOLDER", "instead of a run: an export to write again, e.g. with --dtype"
            ),
            STEP,
            Flag("weights", "KIND", "parameters: ema, the moving average, or raw", "ema"),
            Flag("dtype", "TYPE", "of the parameters: f32 or bf16; without it as stored", ""),
            Flag(
                "sampler_weights",
                "WHERE",
                "inside the sampler, argument, or none: no sampler; without it inside up to 64 MiB",
                "",
            ),
            Flag(
                "chunk_size",
                "N",
                "images that the sampler works on at a time",
                0,
                "integer",
                at_most=MOST_IMAGES,
            ),
            Flag("seeds", "LIST", "seeds of the picture on the model card", "0-15"),
            Flag("licence", "TEXT", "licence of the weights, for the model card", ""),
            Flag("force", "", "replace an export that is there", False, "switch"),
        ),
        examples=(
            "ddgan export --workdir=runs/digits --out=exports/digits",
            "ddgan export --workdir=runs/cifar10 --out=exports/cifar10 --dtype=bf16 \\\n"
            "    --step=300000 --licence=CC-BY-4.0",
            "ddgan export --workdir=runs/digits --push=hf://user/digits --licence=CC-BY-4.0",
        ),
        run=_export,
    ),
    "import nvlabs": Command(
        summary="bring in published DDGAN weights, or a training run of that code",
        description=(
            "Read a checkpoint of NVlabs/denoising-diffusion-gan: netG_*.pth becomes an export,\n"
            "a whole content.pth a run folder from which `ddgan train` goes on. Neither needs\n"
            "PyTorch; code inside a file is never run."
        ),
        flags=_import_flags("cifar10, celebahq256, lsun_church256"),
        examples=(
            "ddgan import nvlabs --checkpoint=netG_1200.pth --args=cifar10 --out=exports/cifar10",
            "ddgan import nvlabs --checkpoint=content.pth --out=runs/continued",
        ),
        run=_import_from("nvlabs"),
    ),
    "import wavediff": Command(
        summary="bring in published WaveDiff weights, or a training run of that code",
        description=(
            "Read a checkpoint of VinAIResearch/WaveDiff: netG_*.pth becomes an export, a whole\n"
            "content.pth a run folder from which `ddgan train` goes on. Neither needs PyTorch;\n"
            "code inside a file is never run. A JSON file of options has to give\n"
            "use_pytorch_wavelet: it decides the order of the Haar bands, which weights do not\n"
            "tell."
        ),
        flags=_import_flags(
            "cifar10, stl10, celebahq256, lsun_church256, celebahq512, celebahq1024"
        ),
        examples=(
            "ddgan import wavediff --checkpoint=netG_1300.pth --args=cifar10 \\\n"
            "    --out=exports/cifar10_wavediff",
            "ddgan import wavediff --checkpoint=content.pth --out=runs/continued",
        ),
        run=_import_from("wavediff"),
    ),
}
