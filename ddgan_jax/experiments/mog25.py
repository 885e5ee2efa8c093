"""Make Table 1 of the SIDDM paper: four methods on 25 Gaussians, by the number of steps.

A cell trains the same two MLPs with another objective. Its networks are so small that a device is
busy with one seed for microseconds: all seeds of a cell train at once (`vmap`), many steps in one
call (`lax.scan`), on data that stays on the device.

The paper's number is the Frechet distance of the raw coordinates. It sees mean and covariance
alone: one broad Gaussian scores as well as 25 sharp ones. The table therefore also says how many
modes are covered and how sharply (`metrics.mixture_statistics`).

A seed has diverged if a loss or a sample is not finite, or if its samples are farther from the data
than a single point at their mean. The table counts such seeds and takes its means over the others.
"""

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from ml_collections import ConfigDict

from ddgan_jax import build, distributed, images, metrics, randomness
from ddgan_jax.data import mixture
from ddgan_jax.data.order import example_ids
from ddgan_jax.experiments import provenance
from ddgan_jax.experiments.mog25_cells import cell_config
from ddgan_jax.experiments.mog25_table import FILE, Cell, read_cells, table, to_json
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.metrics.mixture import MixtureStatistics
from ddgan_jax.progress import Display
from ddgan_jax.state import Metrics, Params, TrainState

STEPS_PER_CALL = 250
# Samples of each seed for the Frechet distance, and fewer of them for the modes.
NUM_SAMPLES = 500_000
NUM_MODE_SAMPLES = 100_000
# Samples drawn at once.
CHUNK = 50_000


def run(
    out: str,
    *,
    methods: Sequence[str],
    steps: Sequence[int],
    seeds: Sequence[int],
    setting: str,
    iterations: int = 0,
) -> None:
    """Train the cells methods x steps; write table.md, cells.json and a picture of each cell.

    "gan" has one cell, of one step. A cell that `out` holds for the same setting, seeds and
    iterations is not trained again. Raises UserError for unknown names, or if `out` cannot be
    written.
    """
    # This raises UserError at once where JAX opens no device.
    distributed.all_devices()
    folder = Path(out)
    # All configs are made first, so that a wrong name is known before the first cell is trained.
    configs = {}
    for method in methods:
        for T in (1,) if method == "gan" else steps:
            config = cell_config(method, T, setting)
            config.train.num_steps = iterations or config.train.num_steps
            configs[method, T] = config
    cells = read_cells(folder)
    for (method, T), config in configs.items():
        key = (method, T, setting, config.train.num_steps, list(seeds))
        if any(key == (c.method, c.num_timesteps, c.setting, c.iterations, c.seeds) for c in cells):
            print(f"{method}, T = {T}: already in {folder}")
            continue
        before = provenance.cpu_seconds()
        params, seconds = train_seeds(config, seeds, title=f"{method}, T = {T}")
        samples = draw_points(config, params, NUM_SAMPLES)
        cell = measure(config, samples, method, setting, seeds, seconds)
        cpu = round(provenance.cpu_seconds() - before, 1)
        about = provenance.describe(_command(cell))
        cells.append(msgspec.structs.replace(cell, cpu_seconds=cpu, about=about))
        first = samples[0][:CHUNK]
        picture = images.scatter(first[np.isfinite(first).all(1)])
        images.write_png(folder / f"{method}_{T}_{setting}.png", picture)
        # Written after every cell, so that a stopped experiment goes on with the next one.
        write_atomically(folder / FILE, to_json(cells))
        write_atomically(folder / "table.md", table(cells).encode())
    print(table(cells))


def _command(cell: Cell) -> str:
    """Return the command that makes this cell again."""
    seeds = ",".join(map(str, cell.seeds))
    return (
        f"ddgan experiment mog25 --methods={cell.method} --steps={cell.num_timesteps} "
        f"--seeds={seeds} --setting={cell.setting} --iterations={cell.iterations} --out=FOLDER"
    )


# ---- training


def make_many_steps(
    config: ConfigDict,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Return many_steps(states, keys, points, ids) -> (states, metrics of the last step).

    states, keys: stacked over S seeds. points: (N, 1, 1, 2), all data. ids: int32 (S, K, B), the
    examples of K steps. A pure function to be jitted.
    """
    # The step averages over an axis of devices, which has one entry here.
    one_device = jax.vmap(
        build.step(config, r1=config.objective.r1_gamma > 0),
        in_axes=(None, 0, None),
        out_axes=None,
        axis_name=distributed.AXIS,
    )
    index = jnp.arange(config.train.batch_size, dtype=jnp.int32)

    def many_steps(
        state: TrainState, key: jax.Array, points: jax.Array, ids: jax.Array
    ) -> tuple[TrainState, Metrics]:
        def step(state: TrainState, ids: jax.Array) -> tuple[TrainState, Metrics]:
            batch = {"image": points[ids], "label": jnp.zeros_like(ids), "index": index}
            return one_device(state, jax.tree.map(lambda x: x[None], batch), key)

        state, metrics = jax.lax.scan(step, state, ids)
        # The metrics of one step are enough to see that a run has diverged: NaN stays.
        return state, jax.tree.map(lambda m: m[-1], metrics)

    return jax.vmap(many_steps, in_axes=(0, 0, None, 0))


@randomness.reproducible()
def train_seeds(config: ConfigDict, seeds: Sequence[int], title: str = "") -> tuple[Params, float]:
    """Return all seeds' EMA parameters of the generator, stacked, and seconds without compiling."""
    points = jnp.asarray(mixture.to_set(config.data.name, mixture.points()[0]))
    keys = jax.vmap(randomness.run_key)(jnp.asarray(seeds, jnp.uint32))
    states = jax.jit(jax.vmap(functools.partial(build.initial_state, config)))(keys)
    many_steps = jax.jit(make_many_steps(config), donate_argnums=0)
    total = config.train.num_steps
    seconds, compiled = 0.0, set()
    with Display(total, title=title, unit="steps", stream=sys.stdout) as display:
        for ids in _ids_of_calls(config, seeds, len(points)):
            # The first call compiles, and so does a last one of fewer steps: neither is timed.
            if ids.shape not in compiled:
                display.phase(f"compiling {title}")
                many_steps.lower(states, keys, points, ids).compile()
                compiled.add(ids.shape)
            start = time.monotonic()
            states, metrics = many_steps(states, keys, points, ids)
            # Without waiting for the device the clock would stop too early.
            jax.block_until_ready(metrics)
            seconds += time.monotonic() - start
            display.advance(ids.shape[1])
    return states.generator.ema_params, seconds


def _ids_of_calls(config: ConfigDict, seeds: Sequence[int], count: int) -> Iterator[np.ndarray]:
    """Yield int32 (S, K, B) for each call: the same order of data as in a run of that seed."""
    total, batch_size = config.train.num_steps, config.train.batch_size
    for start in range(0, total, STEPS_PER_CALL):
        calls = range(start, min(start + STEPS_PER_CALL, total))
        yield np.array(
            [[example_ids(seed, step, batch_size, count) for step in calls] for seed in seeds],
            np.int32,
        )


# ---- measuring


@randomness.reproducible()
def draw_points(config: ConfigDict, params: Params, count: int) -> np.ndarray:
    """Draw samples of all seeds in the coordinates of the paper, float64 (S, count, 2)."""
    sampler = build.sampler(config)

    @jax.jit
    def sample(params: Params, seeds: jax.Array) -> jax.Array:
        labels = jnp.zeros_like(seeds, jnp.int32)
        return jax.vmap(lambda params: sampler(params, seeds, labels).x_t[-1])(params)

    # Every chunk has the same size, so that one program draws them all; the rest is cut off.
    chunks = []
    for start in range(0, count, CHUNK):
        seeds = jnp.arange(start, start + CHUNK, dtype=jnp.uint32)
        drawn = np.asarray(sample(params, seeds))
        chunks.append(drawn[:, : count - start])
    drawn = np.concatenate(chunks, axis=1)
    return np.stack([mixture.from_set(config.data.name, points) for points in drawn])


def measure(
    config: ConfigDict,
    samples: np.ndarray,
    method: str,
    setting: str,
    seeds: Sequence[int],
    seconds: float,
) -> Cell:
    """Return the numbers of a cell. samples: (S, N, 2) in the coordinates of the paper."""
    real, centres = mixture.points()[0], mixture.centres()
    frechet: list[float | None] = []
    modes: list[tuple] = []
    for points in samples:
        # A seed whose parameters have become NaN or infinite draws such points.
        finite = np.isfinite(points).all()
        frechet.append(metrics.frechet_distance(real, points) if finite else None)
        modes.append((None,) * len(MixtureStatistics._fields))
        if finite:
            numbers = metrics.mixture_statistics(points[:NUM_MODE_SAMPLES], centres)
            # Without a sample of high quality there is no width of the modes, and JSON has no NaN.
            modes[-1] = tuple(None if math.isnan(n) else n for n in numbers)
    # The entries of all seeds stand together under each number's name.
    columns = map(list, zip(*modes, strict=True))
    by_name: dict[str, Any] = dict(zip(MixtureStatistics._fields, columns, strict=True))
    return Cell(
        method=method,
        num_timesteps=config.diffusion.num_timesteps,
        setting=setting,
        iterations=config.train.num_steps,
        batch_size=config.train.batch_size,
        seeds=list(seeds),
        frechet=frechet,
        **by_name,
        seconds=seconds,
        iterations_per_second=config.train.num_steps / seconds,
        device=distributed.all_devices()[0].device_kind,
    )
