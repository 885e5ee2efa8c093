"""Train a classifier of the data set at hand, at its first use, and keep it in the cache folder.

Its features compare images where the Inception weights are missing, or know nothing of the domain.
The classifier of single digits counts the modes of stacked ones. A tenth of the set is held out of
the training and gives the accuracy, which belongs beside every number that comes from a classifier.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
from jaxtyping import Int, UInt8
from ml_collections import ConfigDict

from ddgan_jax import data, randomness
from ddgan_jax.config.files import from_dict
from ddgan_jax.data import stacks
from ddgan_jax.data.datasets import ArrayDataset, Dataset, DatasetInfo, StackedDataset
from ddgan_jax.data.order import HELD_OUT_ORDER, permutation
from ddgan_jax.data.selection import whole_split
from ddgan_jax.errors import NotFiniteError, UserError, shown
from ddgan_jax.evaluation import cache
from ddgan_jax.evaluation.batching import call_in_batches
from ddgan_jax.files import arrays, foreign
from ddgan_jax.files.atomic import write_atomically
from ddgan_jax.files.paths import user_path
from ddgan_jax.inference import weights
from ddgan_jax.models import parameters
from ddgan_jax.models.classifier import classify, init_params
from ddgan_jax.state import Batch, Params, PyTree

# The number changes with the network and with its training, so that files of another version are
# made again.
FORMAT = "ddgan_jax classifier 1"
BATCH_SIZE = 128
# So many epochs, within these bounds of steps.
FEWEST_STEPS, MOST_STEPS, EPOCHS = 200, 1_500, 15
# The rate at the top of the one cycle.
LEARNING_RATE = 2e-3
# Fraction of the set that the training never sees.
HELD_OUT = 0.1

Report = Callable[[str], None]


class Trained(NamedTuple):
    """A trained classifier.

    params: On the host, float32. about: The data set, the accuracy and the checksum, as JSON holds
    them.
    """

    params: Params
    about: Mapping[str, Any]


# The bounds keep a file from asking for a network that would not fit into memory.
_Length = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _About(msgspec.Struct):
    """The fields of `Trained.about` as a file holds them."""

    format: str
    dataset: str
    images: Annotated[list[_Length], msgspec.Meta(min_length=3, max_length=3)]
    classes: Annotated[int, msgspec.Meta(ge=2, le=2**20)]
    accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)]
    held_out: _Count
    train_steps: _Count
    seed: _Count
    weights_sha256: str


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A set of some examples of another set, which `ids` picks."""

    source: Dataset
    ids: np.ndarray

    @property
    def info(self) -> DatasetInfo:
        """Return the information of the source, with this number of examples."""
        return dataclasses.replace(self.source.info, num_examples=len(self.ids))

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images and labels by id, as `Dataset.read` does."""
        return self.source.read(self.ids[ids])


def of_dataset(dataset: Dataset, report: Report, *, steps: int = 0) -> Trained:
    """Return the classifier of a labelled set, from the cache folder or trained now.

    report: Takes lines of progress. steps: Train steps, 0 to choose them by the size of the set.
    Raises UserError for a set without classes.
    """
    info = dataset.info
    if info.num_classes < 2:
        raise UserError(
            f"the images of {info.name} have no classes that a classifier could learn: use "
            "`features=pixels`"
        )
    # Small sets need many epochs, and large ones are learned long before many epochs are over.
    steps = steps or min(MOST_STEPS, max(FEWEST_STEPS, EPOCHS * info.num_examples // BATCH_SIZE))
    name = f"{info.name.replace('/', '_')}-{data.fingerprint(dataset)}-{steps}.npz"

    def make(where: str) -> Trained:
        # The name of the file holds everything that the result depends on, so that a change of the
        # set or of the steps never finds the wrong classifier.
        report(f"training a classifier of {info.name}, once: {steps:,} steps, {where}")
        return train(dataset, report, steps=steps)

    def is_enough(found: Trained) -> bool:
        shape = [info.image_size, info.image_size, info.channels]
        return (found.about["images"], found.about["classes"]) == (shape, info.num_classes)

    return cache.kept(f"classifiers/{name}", load, make, save, is_enough=is_enough, report=report)


def of_stacked_digits(config: ConfigDict, report: Report) -> Trained:
    """Return the classifier of single digits, padded as in the channels of the stacks.

    config: The config of a run on a set of `data.stacks`. Raises UserError as `of_dataset` does, if
    the set is another one, and if its digits are missing.
    """
    # All digits: a run on few examples is judged by the same classifier as one on all of them.
    whole = from_dict(config.to_dict())
    whole.data.update(max_examples=0, holdout=0.0, split=whole_split(whole.data.split))
    stacked = data.open_dataset(whole)
    if not isinstance(stacked, StackedDataset):
        known = " and ".join(stacks.SETS)
        raise UserError(f"modes are counted on {known}, not on {config.data.name}")
    digits = stacked.gray[..., None]
    # The digits are padded as in the stacks: a classifier of MNIST's 28 pixels would not fit their
    # channels.
    info = DatasetInfo(stacks.SETS[config.data.name].gray, len(digits), digits.shape[1], 1, 10)
    return of_dataset(ArrayDataset(info, digits, stacked.digits), report)


def label_stacks(params: Params, images: UInt8[np.ndarray, "n h w 3"]) -> Int[np.ndarray, " n"]:
    """Return the labels 100 R + 10 G + B of stacked digits, of which each channel is classified."""
    # The channels become images of their own, in the order R, G, B within each stack.
    digits = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3], 1)
    red, green, blue = _predict(params, digits).reshape(-1, 3).T
    return 100 * red + 10 * green + blue


# ------------------------------------------------------------------------------------ training


@randomness.reproducible()
def train(dataset: Dataset, report: Report, *, steps: int, seed: int = 0) -> Trained:
    """Return a classifier trained on nine tenths of the set.

    The result is a function of the set, `steps` and `seed` alone. Raises NotFiniteError if the
    training diverges.
    """
    info = dataset.info
    # The order has a purpose of its own, so that the held-out part is random whatever order the
    # set is stored in, and the same in every training.
    order = permutation(0, (HELD_OUT_ORDER,), info.num_examples)
    held_out, rest = np.split(order, [max(1, round(info.num_examples * HELD_OUT))])
    # One cycle of the learning rate trains a small network in few steps on any of these sets,
    # without a setting for each.
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, LEARNING_RATE), weight_decay=0.01)
    shape = (info.image_size, info.image_size, info.channels)
    params = init_params(randomness.run_key(seed), shape, info.num_classes)
    state = (params, optimizer.init(params))
    # The old state is donated, since nothing reads it after the step.
    step = jax.jit(partial(_step, optimizer), donate_argnums=0)
    batches = data.batches(Part(dataset, rest), batch_size=BATCH_SIZE, seed=seed, start_step=0)
    # Closing ends the threads that read ahead.
    with contextlib.closing(batches):
        for number in range(1, steps + 1):
            state, loss = step(state, next(batches))
            if number % max(1, steps // 5) == 0:
                report(f"  step {number:,} of {steps:,}, loss {float(loss):.3f}")
    params = jax.device_get(state[0])
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise NotFiniteError(
            f"training a classifier of {info.name} has diverged: its weights are not finite"
        )
    accuracy = _accuracy(params, Part(dataset, held_out))
    report(f"  accuracy {accuracy:.2%} on {len(held_out):,} images that it was not trained on")
    about = {
        "format": FORMAT,
        "dataset": info.name,
        "images": list(shape),
        "classes": info.num_classes,
        "accuracy": accuracy,
        "held_out": len(held_out),
        "train_steps": steps,
        "seed": seed,
        "weights_sha256": sha256(params),
    }
    return Trained(params, about)


def _step(
    optimizer: optax.GradientTransformation, state: tuple[Params, PyTree], batch: Batch
) -> tuple[tuple[Params, PyTree], jax.Array]:
    params, opt_state = state

    def loss_of(params: Params) -> jax.Array:
        logits = classify(params, jnp.asarray(batch["image"]))[1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return losses.mean()

    loss, gradients = jax.value_and_grad(loss_of)(params)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss


def _accuracy(params: Params, dataset: Dataset) -> float:
    correct, count = 0, dataset.info.num_examples
    for start in range(0, count, BATCH_SIZE):
        images, labels = dataset.read(np.arange(start, min(start + BATCH_SIZE, count)))
        correct += int((_predict(params, images) == labels).sum())
    return correct / count


@randomness.reproducible()
def _predict(params: Params, images: np.ndarray) -> np.ndarray:
    return call_in_batches(lambda batch: _best_class(params, batch), images, BATCH_SIZE)


@jax.jit
def _best_class(params: Params, images: jax.Array) -> jax.Array:
    return jnp.argmax(classify(params, images)[1], axis=-1)


# --------------------------------------------------------------------------------------- files


def save(path: str | os.PathLike, trained: Trained) -> None:
    """Write one .npz file, whole or not at all. Raises UserError if it cannot be written."""
    content = io.BytesIO()
    entries: dict[str, Any] = parameters.named(trained.params)
    # One archive holds the words and the arrays, so that they are never parted.
    np.savez(content, about=json.dumps(dict(trained.about)), **entries)
    write_atomically(path, content.getvalue())


def load(path: str | os.PathLike) -> Trained:
    """Return the classifier of a file that `save` wrote.

    Raises UserError for a file that is missing, damaged or of another program.
    """
    path = user_path(path, "classifier")
    found = arrays.read_arrays(path)
    text = arrays.text_of(found, "about", path).encode()
    about = foreign.decode_json(text, _About, source=path)
    # The other entries are the parameters, which are compared with the network's below.
    del found["about"]
    # The sizes in the file decide the shapes, and are compared with the data set by `of_dataset`.
    height, width, channels = about.images
    wanted = jax.eval_shape(
        lambda: init_params(randomness.run_key(0), (height, width, channels), about.classes)
    )
    shapes = {name: leaf.shape for name, leaf in parameters.named(wanted).items()}
    if (about.format, {name: a.shape for name, a in found.items()}) != (FORMAT, shapes):
        raise UserError(f"{shown(path, 300)} is no classifier of ours: move it, to train it again")
    params = parameters.nested(found)
    # The checksum finds damage, and the format and shapes find files of another version.
    numbers = all(a.dtype == np.float32 and np.isfinite(a).all() for a in found.values())
    if not numbers or about.weights_sha256 != sha256(params):
        raise UserError(
            f"{shown(path, 300)} is damaged: it does not match its checksum; move it, to train it "
            "again"
        )
    return Trained(params, msgspec.to_builtins(about))


def sha256(params: Params) -> str:
    """Return a checksum of the names, shapes and values of parameters."""
    return hashlib.sha256(weights.to_safetensors(params)).hexdigest()
