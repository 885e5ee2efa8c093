"""Tell a run to MLflow, at MLFLOW_TRACKING_URI and in the experiment MLFLOW_EXPERIMENT_NAME.

Its client is used, and none of the functions that have a current run for the whole process.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow  # pyright: ignore[reportMissingImports] an extra of the package
import numpy as np
from jaxtyping import UInt8
from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.training.writers import Writer, kept_name

# Parameters that MLflow takes at once.
_AT_ONCE = 100


def open_writer(folder: RunFolder, first_step: int) -> Writer:
    """Begin a run of MLflow, or go on with the one that the run folder names."""
    return _MLflow(folder)


class _MLflow:
    def __init__(self, folder: RunFolder):
        self._client = mlflow.MlflowClient()
        self._run, self._is_known = kept_name(folder, "mlflow", lambda: self._begin(folder))
        if self._is_known:
            self._client.update_run(self._run, status="RUNNING")

    def _begin(self, folder: RunFolder) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "ddgan_jax")
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        return self._client.create_run(number, run_name=folder.path.name).info.run_id

    def config(self, fields: Mapping[str, Any], scores: Sequence[str]) -> None:
        self._client.log_dict(self._run, dict(fields), "config.json")
        # Parameters never change, and a resumed run may have changed some of its fields.
        if not self._is_known:
            flat = [
                Param(f"{a}.{b}", str(v)) for a, part in fields.items() for b, v in part.items()
            ]
            for begin in range(0, len(flat), _AT_ONCE):
                self._client.log_batch(self._run, params=flat[begin : begin + _AT_ONCE])

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(tag, value, now, step) for tag, value in scalars.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def image(self, step: int, tag: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        self._client.log_image(self._run, image, key=tag, step=step)

    def flush(self) -> None:
        # Every call has returned after MLflow's answer.
        pass

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
