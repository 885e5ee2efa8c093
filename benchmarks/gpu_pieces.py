"""Say what is measured on a GPU: the pieces of `benchmarks.gpu_session`, part by part.

A piece is a command with a bound on its seconds. The bounds are estimates for a large GPU with 16
cores beside it: generous, since a piece that passes its bound is cut off.
"""

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.scaling import DEVICES
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.files import load_config, shipped_configs
from ddgan_jax.data import catalog

# Without the weights of the Inception network, distances are those of a classifier's features.
_EVALUATIONS = {
    "cifar10_ddgan": ("--features=classifier", "--num=10000", "--allow-small"),
    "stacked_mnist_ddgan": ("--features=classifier", "--metrics=modes"),
    "mnist_ddgan": ("--features=classifier", "--num=10000", "--allow-small"),
}
# The sets that these configs are made from, as `ddgan prepare` names them.
_SETS = {"cifar10_ddgan": "cifar10", "stacked_mnist_ddgan": "mnist", "mnist_ddgan": "mnist"}
# Seconds in which a run starts, compiles and saves: with fewer it would get nowhere.
_LEAST_OF_A_RUN = 120
DDGAN = (sys.executable, "-m", "ddgan_jax")
_BFLOAT16 = "--config.train.compute_dtype=bfloat16"
_BATCH = "--config.train.batch_size"


class Piece(NamedTuple):
    """A command and what is known of it beforehand.

    seconds: That it takes at most. report: The file for its standard output, JSON; None if it
    writes files itself. needs: "torch", or a data set. side_by_side: The pieces in a row that have
    the same name here run at once. progress: The folder in which a piece that goes on where it was
    cut off keeps what it has done; None for one that begins again. least: The seconds for which it
    is worth starting such a piece. keep: Files and folders to copy to the results, however it ends.
    """

    name: str
    argv: tuple[str, ...]
    seconds: float
    report: str | None = None
    needs: tuple[str, ...] = ()
    side_by_side: str = ""
    progress: Path | None = None
    least: float = 0.0
    keep: tuple[Path, ...] = ()


class Session(NamedTuple):
    """What the flags of a session say. out, runs, data: Folders. together: Pieces at once."""

    out: Path
    runs: Path
    data: str
    steps: int
    together: int


def pieces(parts: str, session: Session) -> list[Piece]:
    """Return all pieces of the parts, letters of PARTS, in the order of the letters."""
    return [piece for part in parts for piece in PARTS[part](session)]


def missing(todo: Sequence[Piece], data: str) -> list[str]:
    """Return a line for each thing that pieces need and that is not here. data: folder of sets."""
    lines = []
    for need in dict.fromkeys(need for piece in todo for need in piece.needs):
        users = [piece.name for piece in todo if need in piece.needs]
        if need == "torch":
            there, remedy = importlib.util.find_spec("torch"), "install PyTorch"
        else:
            there = catalog.find_folder(need, catalog.resolve_data_dir(data))
            remedy = f"ddgan prepare --dataset={need}, and name the folder with --data"
        if not there:
            more = f" and {len(users) - 1} more" if users[1:] else ""
            lines.append(f"{need} is missing, for {users[0]}{more}: {remedy}")
    return lines


def _benchmark(program: str, name: str, seconds: float, *flags: str, **more: object) -> Piece:
    argv = (sys.executable, "-m", f"benchmarks.{program}", *flags)
    return Piece(f"gpu_{name}", argv, seconds, f"gpu_{name}.json")._replace(**more)


def _config(name: str) -> str:
    return f"--config=configs/{name}.py"


@functools.cache
def _loaded(name: str) -> ConfigDict:
    return load_config(f"configs/{name}.py")


def _share(name: str) -> int:
    """Return the images that one device gets on the hardware that the config is meant for."""
    return max(_loaded(name).train.batch_size // DEVICES.get(name, 1), 1)


# -------------------------------------------------------------------------- the parts, in order


def _first_steps(session: Session) -> Iterator[Piece]:
    yield Piece("gpu_device", ("nvidia-smi",), 20)
    yield _benchmark("peak", "peak", 60, "--repeats=3")
    found = []
    for name in shipped_configs():
        config = _loaded(name)
        # Programs of digits and points compile fast, those of two U-Nets slowly.
        large = config.generator.name == "unet"
        seconds = 90 if config.data.image_size <= 8 else 240 if large else 150
        found.append((seconds, name, name, (f"{_BATCH}={_share(name)}",)))
    # What the parts b and d run: compiled here, it is loaded there.
    share, whole = _share("cifar10_ddgan"), _loaded("cifar10_ddgan").train.batch_size
    for dtype, batch, r1 in (
        ("float32", share, "no"),
        ("bfloat16", share, "no"),
        ("bfloat16", whole, "yes"),
        ("bfloat16", whole, "no"),
    ):
        name = f"cifar10_ddgan_{batch}_{dtype}_{'r1' if r1 == 'yes' else 'no_r1'}"
        flags = (f"{_BATCH}={batch}", f"--config.train.compute_dtype={dtype}", f"--r1={r1}")
        found.append((150, name, "cifar10_ddgan", flags))
    turn = f"--turn={session.runs / 'first_steps.lock'}"
    for number, (seconds, name, config, flags) in enumerate(sorted(found)):
        flags = (_config(config), *flags, turn, "--repeats=3")
        row = f"first_{number // session.together}"
        yield _benchmark("first_steps", f"first_{name}", seconds, *flags, side_by_side=row)


def _torch(what: str, batch: int, dtype: str, r1: bool = False) -> str:
    how = f"--batch={batch} --device=cuda --compute={dtype} --calls=10"
    r1_flag = " --r1" if r1 else ""
    return f"--baseline={sys.executable} benchmarks/cifar10_torch.py {what} {how}{r1_flag}"


def _beside_torch(what: str, name: str, dtype: str, batch: int, r1: bool = False) -> Piece:
    """Return alternating runs of ours and of PyTorch's CIFAR-10 step or sampler."""
    flags = (_config("cifar10_ddgan"), f"--config.train.compute_dtype={dtype}", "--repeats=3")
    flags += (_torch(what, batch, dtype, r1),)
    name, needs = f"torch_{name}_{dtype}", ("torch",)
    if what == "sample":
        return _benchmark("sampler", name, 100, *flags, f"--num={batch}", needs=needs)
    flags += (f"{_BATCH}={batch}", f"--r1={'yes' if r1 else 'no'}")
    return _benchmark("train_step", name, 120, *flags, needs=needs)


def _throughput(session: Session) -> Iterator[Piece]:
    for dtype in ("float32", "bfloat16"):
        yield _beside_torch("step", "step", dtype, _share("cifar10_ddgan"))
    for dtype in ("float32", "bfloat16"):
        yield _beside_torch("sample", "sampler", dtype, 256)


def _hundred_images(session: Session) -> Iterator[Piece]:
    for dtype in ("float32", "bfloat16"):
        yield _beside_torch("sample", "100_images", dtype, 100)


def _training(session: Session, config: str) -> Iterator[Piece]:
    """Yield a run with a shortened schedule, which goes on as often as it is cut off."""
    workdir, steps = session.runs / config, session.steps
    settings = (
        *(_BFLOAT16, f"--config.train.num_steps={steps}", f"--config.data.dir={session.data}"),
        *("--config.checkpoint.save_every_steps=1000", "--config.log.samples_every_steps=500"),
    )
    if _loaded(config).optimizer.decay_steps:
        # The cosine must end with the shortened run, and not beyond it.
        settings += (f"--config.optimizer.decay_steps={steps}",)
    yield Piece(
        f"train_{config}",
        (*DDGAN, "train", _config(config), f"--workdir={workdir}", *settings),
        _LEAST_OF_A_RUN + steps / 5,
        needs=(_SETS[config],),
        progress=workdir / "checkpoints",
        least=_LEAST_OF_A_RUN,
        keep=(workdir / "metrics.jsonl", workdir / "machine.jsonl", workdir / "samples"),
    )


def _evaluation(session: Session, config: str) -> Iterator[Piece]:
    """Yield numbers and a grid of the run's newest checkpoint."""
    workdir, needs = session.runs / config, (_SETS[config],)
    evaluate = (*DDGAN, "evaluate", f"--workdir={workdir}", *_EVALUATIONS[config])
    evaluate += (f"--data-dir={session.data}",) if session.data else ()
    out = f"--out={session.out / config}"
    yield Piece(f"evaluate_{config}", (*evaluate, f"{out}_scores.json"), 240, needs=needs)
    sample = (*DDGAN, "sample", f"--workdir={workdir}", "--seeds=0-99", f"{out}_grid.png")
    yield Piece(f"grid_{config}", sample, 120)


def _mixture(session: Session) -> Iterator[Piece]:
    # A cell at a time: those that the folder holds are not trained again.
    for method in ("gan", "ddgan", "siddm", "siddm_no_afd"):
        for steps in (1,) if method == "gan" else (2, 4, 8, 16):
            argv = (
                *(*DDGAN, "experiment", "mog25", f"--methods={method}", f"--steps={steps}"),
                *("--seeds=0-4", "--setting=paper", f"--out={session.out / 'mog25'}"),
            )
            yield Piece(f"mog25_{method}_{steps}", argv, 480)


def _claims(session: Session) -> Iterator[Piece]:
    folder = session.out / "claims"
    argv = (*DDGAN, "experiment", "claims", "--jobs=8", f"--out={folder}")
    # A row takes up to five minutes, and a row that is cut off begins again.
    yield Piece("claims", argv, 1_500, progress=folder, least=300)


def _others(session: Session) -> Iterator[Piece]:
    peak = f"--peak={session.out / 'gpu_peak.json'}"
    cifar10 = _config("cifar10_ddgan")
    for dtype in ("float32", "bfloat16"):
        yield _beside_torch("step", "step_r1", dtype, _share("cifar10_ddgan"), r1=True)
    for steps in (1, 2, 4, 8):
        flags = (cifar10, peak, _BFLOAT16, f"--config.diffusion.num_timesteps={steps}", "--num=100")
        yield _benchmark("sampler", f"speed_nfe_{steps}", 90, *flags)
    for what in ("train_step", "sampler"):
        flags = (cifar10, f"--what={what}", "--num=64", _BFLOAT16, f"{_BATCH}=64")
        yield _benchmark("profiling", f"profile_{what}", 180, *flags)
    for batch in (512, 4_000):
        flags = (f"{_config('mog25')}:siddm", f"{_BATCH}={batch}", "--seeds=5", peak)
        yield _benchmark("mog25", f"mixture_{batch}", 120, *flags)
    yield _benchmark("checkpoint", "checkpoint", 150, cifar10)
    yield _benchmark("startup", "startup", 300, _config("digits_ddgan"), "--repeats=3")
    data = (cifar10, f"--config.data.dir={session.data}")
    flags = (*data, _BFLOAT16, f"{_BATCH}=64")
    yield _benchmark("overhead", "overhead", 180, *flags, needs=("cifar10",))
    yield _benchmark("input_pipeline", "pipeline", 60, *data, needs=("cifar10",))
    for config in sorted(set(shipped_configs()) - {"mog25"}):
        for dtype in ("bfloat16", "float32"):
            flags = (
                *(_config(config), peak, f"--config.train.compute_dtype={dtype}"),
                f"{_BATCH}={_share(config)}",
            )
            yield _benchmark("train_step", f"speed_{config}_step_{dtype}", 300, *flags)
            name = f"speed_{config}_sampler_{dtype}"
            yield _benchmark("sampler", name, 200, *flags, "--num=64")


PARTS: dict[str, Callable[[Session], Iterator[Piece]]] = {
    "a": _first_steps,
    "b": _throughput,
    "c": _hundred_images,
    "d": lambda session: _training(session, "cifar10_ddgan"),
    "e": lambda session: _evaluation(session, "cifar10_ddgan"),
    "f": _mixture,
    "g": _claims,
    "h": lambda session: _trained(session, "stacked_mnist_ddgan"),
    "i": lambda session: _trained(session, "mnist_ddgan"),
    "j": _others,
}


def _trained(session: Session, config: str) -> Iterator[Piece]:
    yield from _training(session, config)
    yield from _evaluation(session, config)
