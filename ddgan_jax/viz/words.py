"""Say in words what a figure shows: the model, its variables, the seed and class of a row."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddgan_jax.config import method_title

if TYPE_CHECKING:
    # A report is made without JAX.
    from ddgan_jax.inference.model import Model

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_PARAMETERS = {"ema": "averaged parameters", "raw": "parameters without averaging"}


def of_model(model: "Model") -> str:
    """Return what a figure is drawn with: method, data, train step, parameters, steps."""
    steps = f"{model.num_steps} denoising step{'s' * (model.num_steps != 1)}"
    data = model.config.data.name or "unnamed data"
    step = f"train step {model.step:,}, {_PARAMETERS.get(model.kind, model.kind)}"
    return f"{method_title(model.config)} on {data}, {step}, {steps}."


def subscripted(text: str) -> str:
    """Return the text with x_12 written as x₁₂."""
    return re.sub(r"x_(\d+)", lambda found: f"x{found[1].translate(_SUBSCRIPTS)}", text)


def rows(seeds: Sequence[int], labels: Sequence[int] | None) -> list[str]:
    """Return the caption of the row of each seed, with its class if there are classes."""
    if labels is None:
        return [f"seed {seed}" for seed in seeds]
    return [f"seed {seed}\nclass {c}" for seed, c in zip(seeds, labels, strict=True)]
