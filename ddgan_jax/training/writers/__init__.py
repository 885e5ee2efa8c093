"""Tell a run to TensorBoard and to experiment trackers, each behind one small interface.

A writer is a module here, with a function `open_writer` that makes the `Writer` of a run. It has a
line in KINDS, under a name of `config.observation.WRITERS`: the values of the field log.writers. A
module is imported for a run that wants it, and its package with it.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from ddgan_jax.errors import UserError, reason
from ddgan_jax.files.run_folder import RunFolder


class Kind(NamedTuple):
    """The module of a writer, the package that it needs, and what to install for that."""

    module: str
    package: str
    source: str


KINDS = {
    "tensorboard": Kind("tensorboard", "tensorboardX", "tensorboardX"),
    "wandb": Kind("wandb_runs", "wandb", '"ddgan-jax[wandb]"'),
    "mlflow": Kind("mlflow_runs", "mlflow", '"ddgan-jax[mlflow]"'),
    "trackio": Kind("trackio_runs", "trackio", '"ddgan-jax[trackio]"'),
}


class Writer(Protocol):
    """Tells one run somewhere. A resumed run may tell steps again that it has told before.

    Every method may raise any exception. A UserError says that the run folder itself cannot be
    written, which ends the run; after another one the run goes on without this writer.
    """

    def config(self, fields: Mapping[str, Any], scores: Sequence[str]) -> None:
        """Tell the fields of the config by section, and the tags of scores that compare runs."""
        ...

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add finite numbers of `step` by tags such as "loss/g_loss"."""
        ...

    def image(self, step: int, tag: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        """Add an image with 1 or 3 channels."""
        ...

    def flush(self) -> None:
        """Send what waits, as far as the writer can."""
        ...

    def close(self, failed: bool) -> None:
        """End. failed: the run was stopped, or an error ended it."""
        ...


def names(text: str) -> list[str]:
    """Return the names of writers in a value of log.writers, such as "tensorboard,wandb"."""
    return [name.strip() for name in text.split(",")] if text else []


def check_packages(wanted: Sequence[str]) -> None:
    """Refuse writers whose packages are not installed. Raises UserError."""
    for name in wanted:
        _, package, source = KINDS[name]
        # Looked for and not imported, which may take seconds.
        if importlib.util.find_spec(package) is None:
            raise UserError(f"log.writers={name} needs {package}: pip install {source}")


class Writers:
    """The writers of a run together. One that fails is left out, and one line says so."""

    def __init__(self, writers: Mapping[str, Writer], report: Callable[[str], None]):
        """Take open writers by name. report: gets the lines."""
        self._writers, self._report = dict(writers), report

    def add(self, name: str, writer: Writer) -> None:
        """Take one more."""
        self._writers[name] = writer

    def config(self, fields: Mapping[str, Any], scores: Sequence[str]) -> None:
        """Do as `Writer.config` for each."""
        self._each(lambda writer: writer.config(fields, scores))

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Do as `Writer.scalars` for each."""
        self._each(lambda writer: writer.scalars(step, scalars))

    def image(self, step: int, tag: str, image: UInt8[np.ndarray, "h w c"]) -> None:
        """Do as `Writer.image` for each."""
        self._each(lambda writer: writer.image(step, tag, image))

    def flush(self) -> None:
        """Do as `Writer.flush` for each."""
        self._each(lambda writer: writer.flush())

    def close(self, failed: bool) -> None:
        """Do as `Writer.close` for each."""
        self._each(lambda writer: writer.close(failed))
        self._writers.clear()

    def _each(self, call: Callable[[Writer], None]) -> None:
        for name, writer in list(self._writers.items()):
            try:
                call(writer)
            except UserError:
                raise
            # A tracker may fail in ways of its own, and no curve is worth the training.
            except Exception as error:
                del self._writers[name]
                self._report(f"went on without log.writers={name}: {reason(error)}")


def open_writers(
    wanted: Sequence[str], folder: RunFolder, first_step: int, *, report: Callable[[str], None]
) -> Writers:
    """Open the writers of a run by name.

    folder: exists. first_step: the first step that they may be told; what they know of it and of
    later ones is done again. report: gets a line when one is left out later. Raises UserError if
    one cannot be opened.
    """
    opened = Writers({}, report)
    for name in wanted:
        try:
            module = importlib.import_module(f"{__name__}.{KINDS[name].module}")
            opened.add(name, module.open_writer(folder, first_step))
        except Exception as error:
            opened.close(failed=True)
            if isinstance(error, UserError):
                raise
            raise UserError(f"log.writers={name} cannot begin: {reason(error)}") from error
    return opened


def kept_name(folder: RunFolder, tracker: str, make: Callable[[], str]) -> tuple[str, bool]:
    """Return under which name a tracker knows the run, and whether it does already.

    make: gives the name of a new run. The name stays in the run folder, so that the run goes on
    there when it resumes. Raises UserError if it cannot be kept.
    """
    known = folder.read_trackers(report=lambda line: None)
    if tracker in known:
        return known[tracker], True
    name = make()
    folder.write_trackers(known | {tracker: name})
    return name, False
