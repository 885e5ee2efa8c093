"""The precision of products and convolutions: what a config asks for is in the whole train step."""

import functools

import jax
import pytest
from jax import lax
from jax.extend import core

from ddgan_jax import build, distributed
from ddgan_jax.inspection import costs
from tests.methods import config_of

PRODUCTS = ("conv_general_dilated", "dot_general")


def equations(jaxpr):
    """All equations, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda leaf: isinstance(leaf, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(value, core.ClosedJaxpr):
                yield from equations(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                yield from equations(value)


def precisions(precision: str) -> set:
    """The precisions of all products of a train step with R1: forward, backward, twice backward."""
    config = config_of("ddgan", train__matmul_precision=precision)
    key = jax.random.key(0)
    state = jax.eval_shape(functools.partial(build.initial_state, config), key)
    step, batch = build.step(config, r1=True), costs.abstract_batch(config, 4)
    traced = jax.make_jaxpr(step, axis_env=[(distributed.AXIS, 1)])(state, batch, key)
    found = [e.params["precision"] for e in equations(traced.jaxpr) if e.primitive.name in PRODUCTS]
    assert len(found) > 50
    return set(found)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("default", None),
        ("tensorfloat32", (lax.Precision.HIGH, lax.Precision.HIGH)),
        ("float32", (lax.Precision.HIGHEST, lax.Precision.HIGHEST)),
    ],
)
def test_all_products_of_a_step_have_the_precision_of_the_config(asked, found):
    assert precisions(asked) == {found}
