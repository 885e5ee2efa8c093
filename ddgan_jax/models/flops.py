"""Count the floating-point operations of a function in its traced program.

Matrix products and convolutions count, two operations per multiply-add, as in papers; elementwise
operations do not. Tracing needs neither data nor an accelerator.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def count_flops(function: Callable[..., Any], *args: Any) -> int:
    """Return the FLOPs of function(*args). args: arrays or jax.ShapeDtypeStruct."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_features = kernel[params["dimension_numbers"].rhs_spec[0]]
        # Each output sums over the kernel's window and its input channels, but not over its
        # outputs.
        return 2 * _size(equation.outvars[0]) * math.prod(kernel) // out_features
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted)
    if name == "cond":
        # Only one branch runs, and the larger one is the bound.
        return max(_count(branch.jaxpr) for branch in params["branches"])
    # A scan holds its body once. Other calls, such as `jit`, run theirs once.
    repeats = params.get("length", 1) if name == "scan" else 1
    return repeats * sum(_count(inner) for inner in _inner_programs(params))


def _inner_programs(params: dict[str, Any]) -> list[core.Jaxpr]:
    # A closed program, one with its constants, holds the program itself under this name.
    values = [getattr(value, "jaxpr", value) for value in params.values()]
    return [value for value in values if isinstance(value, core.Jaxpr)]


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)
