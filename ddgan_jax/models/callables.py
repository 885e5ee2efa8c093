"""Call the networks of every kind by two signatures, whatever arguments their modules take.

`registry` makes these objects from a config.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Float

from ddgan_jax.state import AnyArray, Images, Judgement, Keys, Labels, Params

# (x, t, z or x_{t+1}, labels) -> the arguments of a module, in its order.
Arrange = Callable[..., tuple]
# (x, output of the module) -> Judgement.
Read = Callable[[AnyArray, jax.Array], Judgement]
# Integers of a discrete schedule, floats of a continuous one.
Times = Float[AnyArray, " b"] | Any


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """A Flax module that is called as `generate`."""

    # A Flax module, or another object with its methods `init` and `apply`.
    module: Any
    arrange: Arrange
    # Whether the module takes dropout keys at all.
    has_dropout: bool
    # As config.train.matmul_precision; gradients have that of the forward pass.
    precision: str = "default"

    def __call__(
        self,
        params: Params,
        x: Images,
        t: Times,
        z: Float[AnyArray, "b *latent l"],
        labels: Labels = None,
        dropout_keys: Keys | None = None,
    ) -> jax.Array:
        """Return the output (B, H, W, C), float32 or wider."""
        keys = {"dropout_keys": dropout_keys} if self.has_dropout else {}
        with _products_in(self.precision):
            return self.module.apply({"params": params}, *self.arrange(x, t, z, labels), **keys)


@dataclasses.dataclass(frozen=True, eq=False)
class Discriminator:
    """A Flax module that is called as `discriminate`."""

    module: Any  # as that of `Generator`
    arrange: Arrange
    read: Read
    has_dropout: bool
    precision: str = "default"

    def __call__(
        self,
        params: Params,
        x: Images,
        t: Times,
        x_tp1: Images | None = None,
        labels: Labels = None,
        dropout_keys: Keys | None = None,
    ) -> Judgement:
        """Return the judgement of the images x, alone or as pairs with x_{t+1}."""
        keys = {"dropout_keys": dropout_keys} if self.has_dropout else {}
        with _products_in(self.precision):
            inputs = self.arrange(x, t, x_tp1, labels)
            output = self.module.apply({"params": params}, *inputs, **keys)
        return self.read(x, output)


def _products_in(precision: str) -> contextlib.AbstractContextManager[Any]:
    # Whoever calls may have asked for a precision of his own, which the default leaves alone.
    if precision == "default":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(precision)
