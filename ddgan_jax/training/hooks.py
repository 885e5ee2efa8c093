"""Make scores, pictures and the best checkpoint from the state of a run.

Scores go into the run's lines of metrics under names such as "eval/frechet_pixels_1000". The best
checkpoint lies in WORKDIR/best, which is itself like a run folder, so that
`ddgan sample --workdir=runs/x/best` draws from it.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from ddgan_jax import data, distributed, images, pixels
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config import run_config
from ddgan_jax.config.files import from_dict
from ddgan_jax.data.datasets import Dataset
from ddgan_jax.data.selection import chosen_split
from ddgan_jax.errors import NotFiniteError
from ddgan_jax.evaluation import reference
from ddgan_jax.evaluation.features import FeatureNetwork
from ddgan_jax.evaluation.scorer import open_scorer
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import drawing
from ddgan_jax.metrics import names
from ddgan_jax.metrics.statistics import SavedStatistics
from ddgan_jax.sampling import Sampler
from ddgan_jax.state import GeneratorState, Params, TrainState
from ddgan_jax.training import reporter

PREFIX = "eval/"
NUM_TRAJECTORIES = 8


def is_due(step: int, every_steps: int, num_steps: int) -> bool:
    """Return whether the state after `step` is evaluated: every so many steps, and at the end.

    every_steps: 0 for never. num_steps: at which the run ends.
    """
    return every_steps > 0 and (step % every_steps == 0 or step == num_steps)


def make_scores(
    config: ConfigDict, dataset: Dataset, draw: drawing.Draw, message: Callable[[str], None]
) -> Callable[[Params], dict[str, float]]:
    """Return scores(params), which gives the numbers of config.eval by their names in the logs.

    draw: made by `drawing.make_drawer`. message: takes lines about what is made once. This opens
    the feature network and the statistics of the training set; raises UserError if it cannot.
    """
    wanted, count = config.eval, config.eval.num_samples
    metrics = wanted.metrics.split(",")

    def real(network: FeatureNetwork) -> SavedStatistics:
        # Most metrics need mean and covariance alone; some compare single images.
        keep = count if names.reads(metrics, "vectors") else 0
        asked = from_dict(config.to_dict())
        asked.data.split = chosen_split(wanted.split, config.data.split)
        same = asked.data.split == config.data.split
        images = dataset if same else data.open_dataset(asked, report=message)
        return reference.from_cache(
            images, network, split=asked.data.split, keep=keep, report=message
        )

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
    # The first call compiles, and may fail. It is made now and not after hours of training.
    info = dataset.info
    scorer.network.extract(np.zeros((1, info.image_size, info.image_size, info.channels), np.uint8))
    request = drawing.each_class(config.data.num_classes, range(count))

    def scores(params: Params) -> dict[str, float]:
        try:
            found = scorer(draw(params, request))
        except NotFiniteError as error:
            # Features may overflow for odd images. The run goes on, since its state has checks of
            # its own (`health`).
            message(f"no numbers this time: {error}")
            return {}
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    return scores


def state_metrics(
    step: int, generator: GeneratorState, learning_rates: Mapping[str, optax.Schedule]
) -> dict[str, Float[Array, ""] | float]:
    """Return metrics of the state after `step` that the train step does not compute itself.

    ema_distance: |averaged - raw| / |raw| over all parameters of the generator together.
    X_learning_rate: the rate with which this step was made, for each network X of learning_rates.
    """
    # How far the average lags behind the raw parameters, which it follows slowly.
    distance = _relative_distance(generator.ema_params, generator.params)
    # An optimiser counts the steps before its own, as the schedules of Optax do.
    rates = {
        f"{name}_learning_rate": np.asarray(rate(step - 1)).item()
        for name, rate in learning_rates.items()
    }
    return {"ema_distance": distance, **rates}


@jax.jit
def _relative_distance(a: Params, b: Params) -> jax.Array:
    return optax.tree.norm(jax.tree.map(jnp.subtract, a, b)) / optax.tree.norm(b)


def make_step_picture(
    sampler: Sampler, request: drawing.Request, devices: distributed.Devices
) -> Callable[[Params], UInt8[np.ndarray, "h w c"]] | None:
    """Return picture(params): the x_0 that each denoising step predicts, a row for each image.

    request: the images, of which the first NUM_TRAJECTORIES are used. Returns None for a model that
    predicts no x_0, and for points.
    """
    if pixels.are_points(sampler.image_shape) or sampler.prediction == "x_t":
        return None
    # A program of its own for a few images, since a chunk of trajectories is large.
    chunk_size = -(-NUM_TRAJECTORIES // len(devices))
    draw = drawing.make_drawer(sampler, devices, chunk_size, trajectory=True)
    first = drawing.Request(*(part[:NUM_TRAJECTORIES] for part in request))

    def picture(params: Params) -> UInt8[np.ndarray, "h w c"]:
        x_0 = drawing.concatenate(draw(params, first)).x_0
        # A row of the grid is an image, a column a step.
        steps = x_0.shape[1]
        return images.grid(pixels.to_uint8(x_0).reshape(-1, *x_0.shape[2:]), columns=steps)

    return picture


def best_name(config: ConfigDict) -> str:
    """Return the name in the logs of the score that chooses the best checkpoint, "" without."""
    wanted = config.eval
    if not (wanted.every_steps and wanted.best):
        return ""
    full_names = names.value_names(wanted.metrics.split(","), wanted.features, wanted.num_samples)
    return f"{PREFIX}{full_names[wanted.best]}"


class Best(AbstractContextManager):
    """Keeps the checkpoint with the best score so far, or nothing if config.eval asks for none.

    In a job of several processes all of them call every method; only the main process has scores.
    """

    def __init__(self, run: RunFolder, config: ConfigDict):
        """Find the checkpoint that a resumed run has kept, and its score in the run's metrics."""
        self.folder, self._config = run.best, config
        self._checkpoints: Checkpoints | None = None
        self._name = best_name(config)
        if not self._name:
            return
        self._checkpoints = Checkpoints(self.folder.checkpoints, keep_latest=1, keep_every_steps=0)
        kept = self._checkpoints.latest_step()
        # The score to beat belongs to the checkpoint that is there. A later line may have a better
        # one whose checkpoint was lost to a kill.
        lines = run.read_metrics(report=reporter.warn)
        scores = [line.metrics.get(self._name) for line in lines if line.step == kept]
        self._best = scores[-1] if scores else None

    def save_if_better(self, step: int, scores: Mapping[str, float], state: TrainState) -> bool:
        """Save the state if its score is better than all before; return whether it is.

        scores: by their names in the logs; {} on all processes but the main one. Writing goes on in
        the background. A run that repeats steps leaves later checkpoints alone, since it will come
        to those steps again, with the same scores.
        """
        if self._checkpoints is None:
            return False
        better = bool(scores) and names.is_better(
            self._config.eval.best, scores[self._name], self._best
        )
        # Saving is a joint work of all processes, so they must agree.
        if not distributed.from_main_process(better):
            return False
        self._best = scores.get(self._name)
        if step >= (self._checkpoints.latest_step() or 0):
            if distributed.is_main_process():
                run_config.write_config(self.folder, self._config)
            self._checkpoints.save(step, state, self._config.to_dict())
        return True

    def wait(self) -> None:
        """Return when nothing is being written; raise UserError if that failed."""
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def close(self, *exception: object) -> None:
        """Wait likewise and close; leaving the context does the same."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    __exit__ = close
