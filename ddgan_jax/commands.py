"""The commands of `ddgan`, each described once: its help page, its flags, what runs it.

What a command needs is imported when it runs, so that help and mistakes answer at once.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import flags

from ddgan_jax.arguments import Flag, parse_integers, parse_labels, parse_names, parse_seeds
from ddgan_jax.config import ConfigDict
from ddgan_jax.errors import UserError


class Command(NamedTuple):
    """One command, and everything that its help page says.

    run: called with the parsed flags, and with the config if the command takes one.
    """

    summary: str
    description: str
    flags: tuple[Flag, ...]
    examples: tuple[str, ...]
    run: Callable[..., None]
    takes_config: bool = False
    when_interrupted: str = "interrupted"


def _train(values: flags.FlagValues, config: ConfigDict) -> None:
    use_compilation_cache()
    from ddgan_jax import hosts

    hosts.join(
        values.coordinator,
        values.num_processes,
        values.process_id,
        peer_timeout=values.peer_timeout,
    )
    from ddgan_jax.train import train

    train(config, values.workdir)


def _sample(values: flags.FlagValues) -> None:
    use_compilation_cache()
    if values.num is not None and (values["seeds"].present or values.num < 1):
        raise UserError("--num=N is short for --seeds=0-(N-1): a positive number, and no --seeds")
    seeds = parse_seeds(values.seeds) if values.num is None else range(values.num)
    labels = parse_labels(values.labels)
    from ddgan_jax.sample import Options, sample_command

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
    )


def _export(values: flags.FlagValues) -> None:
    use_compilation_cache()
    seeds = parse_seeds(values.seeds)
    (kind,) = parse_names("weights", values.weights, ("ema", "raw"))
    from ddgan_jax import export, sample

    model = sample.open_model(values.workdir, values.export, values.step, kind)
    export.write(
        model.with_sampling(chunk_size=values.chunk_size) if values.chunk_size else model,
        values.out,
        dtype=export.dtype_name(values.dtype),
        sampler_weights=values.sampler_weights,
        grid_seeds=seeds,
        licence=values.licence,
        force=values.force,
    )
    print(f"step {model.step} in {values.out}; see {Path(values.out) / 'README.md'}")


def _import_nvlabs(values: flags.FlagValues) -> None:
    use_compilation_cache()
    from ddgan_jax.interop.nvlabs_checkpoints import import_command

    import_command(
        values.checkpoint, values.out, args=values.args, data=values.data, licence=values.licence
    )


def _import_inception(values: flags.FlagValues) -> None:
    from ddgan_jax.interop.inception import convert

    convert(values["from"].value, values.out)
    print(f"the FID Inception network in {values.out}")


def _show(values: flags.FlagValues, config: ConfigDict) -> None:
    del values
    from ddgan_jax.show import show

    print(show(config))


def _prepare(values: flags.FlagValues) -> None:
    from ddgan_jax.data.prepare import prepare

    folder = prepare(
        values.dataset,
        data_dir=values.data_dir,
        archive=values.archive,
        images=values.images,
        arrays=values.arrays,
        download=values.download,
    )
    print(f"prepared in {folder}")


def _mog25(values: flags.FlagValues) -> None:
    use_compilation_cache()
    from ddgan_jax.experiments import mog25, mog25_cells

    mog25.run(
        values.out,
        methods=parse_names("methods", values.methods, mog25_cells.METHODS),
        steps=parse_integers("steps", values.steps),
        seeds=parse_seeds(values.seeds),
        setting=values.setting,
        iterations=values.iterations,
    )


# TPU pods, SLURM and Open MPI say all this themselves.
HOST_FLAGS = (
    Flag("coordinator", "HOST:PORT", "of process 0, for a job of several processes"),
    Flag("num_processes", "N", "of the job, with --coordinator", kind="integer"),
    Flag("process_id", "I", "of this process, 0 to N - 1, with --coordinator", kind="integer"),
    Flag("peer_timeout", "SECONDS", "within which a lost peer ends this one", 120, "integer"),
)

COMMANDS = {
    "train": Command(
        summary="train a model; the same command again resumes",
        description=(
            "Train the model that a config describes. The run folder gets the config, metrics,\n"
            "grids of samples and checkpoints. Running the same command again continues from the\n"
            "last checkpoint. `ddgan show` lists the fields of a config."
        ),
        flags=(
            Flag("workdir", "FOLDER", "run folder, made if it does not exist", required=True),
            *HOST_FLAGS,
        ),
        examples=(
            "ddgan train --config=configs/digits_ddgan.py --workdir=runs/digits",
            "ddgan train --config=configs/cifar10_ddgan.py --workdir=runs/cifar10 \\\n"
            "    --config.train.batch_size=128 --config.data.dir=/data/tfds",
        ),
        run=_train,
        takes_config=True,
        when_interrupted="interrupted; the same command continues from the last checkpoint",
    ),
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
            Flag("workdir", "FOLDER", "run folder of `ddgan train`"),
            Flag("export", "FOLDER", "of `ddgan export`, or hf://user/repository"),
            Flag("seeds", "LIST", "one image per seed, e.g. 0-63 or 1,5,10-20", "0-63"),
            Flag("num", "N", "the seeds 0 to N - 1", kind="integer"),
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
            Flag(
                "step", "N", "train step of the checkpoint; without it the latest", kind="integer"
            ),
            Flag(
                "denoising_steps",
                "N",
                "another number than in training; schedule 'cosine' only",
                0,
                "integer",
            ),
            Flag("interpolate", "N", "images between each two neighbouring seeds", 0, "integer"),
            Flag("latent_seed", "N", "all images get the latents z of this seed", kind="integer"),
            Flag("image", "FILE", "begin with this image, made noisy, instead of with noise"),
            Flag(
                "start",
                "N",
                "step at which --image enters, 0 to T - 1; without it half way",
                kind="integer",
            ),
            Flag("trajectory", "", "show what each step arrives at", False, "switch"),
        ),
        examples=(
            "ddgan sample --workdir=runs/digits --seeds=0-99 --out=grid.png",
            "ddgan sample --workdir=runs/cifar10 --num=50000 --out=samples.npz --step=300000",
            "ddgan sample --export=exports/digits --seeds=3,7 --interpolate=6 --out=between.png",
        ),
        run=_sample,
        when_interrupted="interrupted; the same command goes on where this one stopped",
    ),
    "show": Command(
        summary="explain a config without data or accelerator",
        description=(
            "Print the resolved config, the parameters of each module, FLOPs per image and an\n"
            "estimate of the memory. Needs neither data nor an accelerator."
        ),
        flags=(),
        examples=(
            "ddgan show --config=configs/cifar10_ddgan.py",
            "ddgan show --config=configs/celebahq256_ddgan.py --config.train.batch_size=8",
        ),
        run=_show,
        takes_config=True,
    ),
    "prepare": Command(
        summary="make a data set ready for training",
        description=(
            "Convert a data set to the form that training reads: CIFAR-10 and MNIST from their\n"
            "published archives, a set of your own from a folder of images or an .npz file. Every\n"
            "other set of TFDS is converted by TFDS itself, which needs TensorFlow:\n"
            "pip install 'ddgan-jax[tf]'. What exists already is never overwritten."
        ),
        flags=(
            Flag(
                "dataset",
                "NAME",
                "name of the set: cifar10, mnist, any of TFDS, or your own",
                required=True,
            ),
            Flag(
                "data_dir",
                "FOLDER",
                "where prepared sets lie; without it $TFDS_DATA_DIR or ~/tensorflow_datasets",
                "",
            ),
            Flag("archive", "PATH", "published archive of cifar10 or mnist"),
            Flag("images", "FOLDER", "PNG or JPEG files, one sub-folder per class"),
            Flag(
                "arrays", "FILE", ".npz file with uint8 images (N, H, W, C) and maybe labels (N,)"
            ),
            Flag(
                "download",
                "",
                "fetch the archive of cifar10 or mnist from its publisher",
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
    "export": Command(
        summary="write a trained model as files that outlive this program",
        description=(
            "Write the generator of a run folder as model.safetensors and config.json, which\n"
            "numpy reads, as sampler.stablehlo, which draws images with nothing but JAX on CPU,\n"
            "NVIDIA GPU or TPU, and a model card. The folder appears whole or not at all."
        ),
        flags=(
            Flag("out", "FOLDER", "the export, which must not exist", required=True),
            Flag("workdir", "FOLDER", "run folder of `ddgan train`"),
            Flag("export", "FOLDER", "instead: an export to be written again, e.g. with --dtype"),
            Flag(
                "step", "N", "train step of the checkpoint; without it the latest", kind="integer"
            ),
            Flag("weights", "KIND", "ema: the moving average, or raw", "ema"),
            Flag("dtype", "TYPE", "f32 or bf16; without it as they are stored", ""),
            Flag(
                "sampler_weights",
                "WHERE",
                "inside the sampler or its argument; without it inside up to 64 MiB",
                "",
            ),
            Flag("chunk_size", "N", "images that the sampler works on at a time", 0, "integer"),
            Flag("seeds", "LIST", "of the model card's picture", "0-15"),
            Flag("licence", "TEXT", "of the weights, for the model card", ""),
            Flag("force", "", "replace an export that is there", False, "switch"),
        ),
        examples=(
            "ddgan export --workdir=runs/digits --out=exports/digits",
            "ddgan export --workdir=runs/cifar10 --out=exports/cifar10 --dtype=bf16 \\\n"
            "    --step=300000 --licence=CC-BY-4.0",
        ),
        run=_export,
    ),
    "import nvlabs": Command(
        summary="bring in published DDGAN weights, or a training run of that code",
        description=(
            "Read a checkpoint of NVlabs/denoising-diffusion-gan: netG_*.pth becomes an export,\n"
            "a whole content.pth a run folder from which `ddgan train` goes on. Needs PyTorch for\n"
            "reading (pip install 'ddgan-jax[torch]'); code inside a file is never run."
        ),
        flags=(
            Flag("checkpoint", "FILE", "netG_*.pth or content.pth", required=True),
            Flag("out", "FOLDER", "the export or run folder, which must not exist", required=True),
            Flag(
                "args",
                "NAME",
                "cifar10, celebahq256, lsun_church256, or a JSON file; content.pth has its own",
                "",
            ),
            Flag("data", "NAME", "data set to go on with; without it that of the args", ""),
            Flag("licence", "TEXT", "of the weights, for the model card", ""),
        ),
        examples=(
            "ddgan import nvlabs --checkpoint=netG_1200.pth --args=cifar10 --out=exports/cifar10",
            "ddgan import nvlabs --checkpoint=content.pth --out=runs/continued",
        ),
        run=_import_nvlabs,
    ),
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
    "experiment mog25": Command(
        summary="the 25-Gaussian table of the SIDDM paper",
        description=(
            "Train cells of Table 1 of the SIDDM paper, all seeds of a cell at once, and write a\n"
            "table (mean and spread over the seeds) beside the paper's numbers, the same as JSON,\n"
            "and a scatter picture of each cell. Cells that --out holds already are kept.\n"
            'Setting "paper" is that of the authors, a matter for an accelerator; "reduced"\n'
            "(rescaled data, other learning rates, fewer and smaller iterations) takes\n"
            "minutes on a CPU."
        ),
        flags=(
            Flag("out", "FOLDER", "where the table goes", required=True),
            Flag("methods", "LIST", "rows, e.g. gan,ddgan,siddm,siddm_no_afd", "ddgan,siddm"),
            Flag("steps", "LIST", "columns: denoising steps T", "4"),
            Flag("seeds", "LIST", "e.g. 0-4", "0"),
            Flag("setting", "NAME", "reduced or paper", "reduced"),
            Flag("iterations", "N", "another number than the setting's", 0, "integer"),
        ),
        examples=(
            "ddgan experiment mog25 --methods=siddm --steps=4 --out=runs/mog25",
            "ddgan experiment mog25 --setting=paper --methods=gan,ddgan,siddm,siddm_no_afd \\\n"
            "    --steps=2,4,8,16 --seeds=0-4 --out=runs/table1",
        ),
        run=_mog25,
    ),
}


def use_compilation_cache() -> None:
    """Let JAX keep compiled programs on disk; call before jax is imported.

    They lie in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/ddgan_jax/jax, and are found
    again by the next run with the same config and devices: it starts in seconds. Everything is
    kept however fast it compiled. JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "ddgan_jax" / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
