"""What a run shows of its state beside the losses: numbers, steps as pictures, the best checkpoint.

The numbers go into the run's lines of metrics as "eval/frechet_pixels_1000". The best checkpoint
lies in WORKDIR/best, which is itself like a run folder: `ddgan sample --workdir=runs/x/best`.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ddgan_jax import build, distributed, images
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config import has_points, run_config
from ddgan_jax.data.datasets import Dataset
from ddgan_jax.errors import NotFiniteError
from ddgan_jax.evaluation import reference
from ddgan_jax.evaluation.features import FeatureNetwork
from ddgan_jax.evaluation.scorer import open_scorer
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import drawing
from ddgan_jax.metrics import names
from ddgan_jax.metrics.statistics import SavedStatistics
from ddgan_jax.state import GeneratorState, Params, TrainState
from ddgan_jax.training import reporter

PREFIX = "eval/"
NUM_TRAJECTORIES = 8
Draw = Callable[[Params, drawing.Request], Iterable[np.ndarray]]


def is_due(config: ConfigDict, step: int) -> bool:
    """Whether the parameters after `step` are evaluated: every so often, and at the end."""
    every = config.eval.every_steps
    return every > 0 and (step % every == 0 or step == config.train.num_steps)


def make_scores(
    config: ConfigDict, dataset: Dataset, draw: Draw, message: Callable[[str], None]
) -> Callable[[Params], dict[str, float]]:
    """scores(params) -> the numbers of config.eval, by the names that they have in the logs.

    draw: of `drawing.make_drawer`. message: takes lines about what is made once. Opens the feature
    network and the statistics of the training set; raises UserError if that cannot be done.
    """
    wanted, count = config.eval, config.eval.num_samples
    metrics = wanted.metrics.split(",")

    def real(network: FeatureNetwork) -> SavedStatistics:
        keep = count if names.reads(metrics, "vectors") else 0
        split = config.data.split
        return reference.from_cache(dataset, network, split=split, keep=keep, report=message)

    scorer = open_scorer(
        metrics,
        count,
        features=wanted.features,
        protocol=wanted.protocol,
        inception_file=wanted.inception,
        dataset=lambda: dataset,
        config=lambda: config,
        reference=real,
        report=message,
    )
    # What fails or takes long at the first call does so now, and not after hours of training.
    size, channels = config.data.image_size, config.data.channels
    scorer.network.extract(np.zeros((1, size, size, channels), np.uint8))
    request = drawing.each_class(config.data.num_classes, range(count))

    def scores(params: Params) -> dict[str, float]:
        try:
            found = scorer(draw(params, request))
        except NotFiniteError as error:  # of one evaluation; the run has checks of its own
            message(f"no numbers this time: {error}")
            return {}
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    return scores


def facts(config: ConfigDict, step: int, generator: GeneratorState) -> dict[str, jax.Array]:
    """What a line of metrics tells of the state after `step`, beside what the step returned.

    ema_distance: |averaged - raw| / |raw| of all parameters together. Learning rates of the step.
    """
    rates = {"g": "generator", "d": "discriminator"}
    return {
        "ema_distance": _relative_distance(generator.ema_params, generator.params),
        **{
            f"{short}_learning_rate": build.learning_rate(config, network)(step - 1)
            for short, network in rates.items()
        },
    }


@jax.jit
def _relative_distance(a: Params, b: Params) -> jax.Array:
    return optax.tree.norm(jax.tree.map(jnp.subtract, a, b)) / optax.tree.norm(b)


def make_step_picture(
    config: ConfigDict, devices: distributed.Devices
) -> Callable[[Params], np.ndarray] | None:
    """picture(params): the x_0 that each step predicts, uint8; a row for each of a few seeds.

    The seeds are the first of the run's grids. None for a model that predicts no x_0, and for
    points.
    """
    if has_points(config) or config.objective.prediction == "x_t":
        return None
    few = -(-NUM_TRAJECTORIES // len(devices))
    draw = drawing.make_drawer(build.sampler(config), devices, few, trajectory=True)
    shown = drawing.Request(*(part[:NUM_TRAJECTORIES] for part in drawing.overview(config)))

    def picture(params: Params) -> np.ndarray:
        x_0 = drawing.concatenate(draw(params, shown)).x_0
        steps = x_0.shape[1]
        return images.grid(images.to_uint8(x_0).reshape(-1, *x_0.shape[2:]), columns=steps)

    return picture


class Best(AbstractContextManager):
    """The checkpoint with the best number so far, in WORKDIR/best; nothing if none is asked for.

    A job of several processes calls every method on all of them; the first one knows the numbers.
    """

    def __init__(self, run: RunFolder, config: ConfigDict):
        """Find what a resumed run has kept, with its number in the run's metrics."""
        self.folder, self._config = run.best, config
        self._checkpoints: Checkpoints | None = None
        wanted = config.eval
        if not (wanted.every_steps and wanted.best):
            return
        metrics = wanted.metrics.split(",")
        full_names = names.value_names(metrics, wanted.features, wanted.num_samples)
        self._name = f"{PREFIX}{full_names[wanted.best]}"
        self._checkpoints = Checkpoints(self.folder.checkpoints, keep_latest=1, keep_every_steps=0)
        kept = self._checkpoints.latest_step()
        # That of the checkpoint which is there: a later line may have lost its own to a kill.
        lines = run.read_metrics(report=reporter.warn)
        numbers = [line.metrics.get(self._name) for line in lines if line.step == kept]
        self._best = numbers[-1] if numbers else None

    def offer(self, step: int, scores: Mapping[str, float], state: TrainState) -> bool:
        """Keeps the state if its number is better; whether it is. scores: {} on other processes.

        Writing goes on in the background. A run that repeats steps leaves later ones alone: it will
        come to them again, with the same numbers.
        """
        if self._checkpoints is None:
            return False
        better = bool(scores) and names.is_better(
            self._config.eval.best, scores[self._name], self._best
        )
        if not distributed.from_first_process(better):
            return False
        self._best = scores.get(self._name)
        if step >= (self._checkpoints.latest_step() or 0):
            if distributed.is_first_process():
                run_config.write_config(self.folder, self._config)
            self._checkpoints.save(step, state, self._config.to_dict())
        return True

    def wait(self) -> None:
        """Returns when nothing is being written; raises UserError if that failed."""
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def close(self, *exception: object) -> None:
        """Waits likewise; leaving the context does the same."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    __exit__ = close
