"""Denoising diffusion GANs in JAX: train on every accelerator of a pod, sample in four steps."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from ddgan_jax.inference.model import Model

__version__ = "0.1.0"


def load(path: "str | os.PathLike", *, num_steps: int = 0) -> "Model":
    """Return the model of an export, of a run folder, or of "hf://user/repository".

        ddgan_jax.load("digits").sample(16).save("grid.png")

    path: also "digits", a model that comes with the package. num_steps: denoising steps, 0: those
    of the config. Raises errors.UserError, a ValueError, for wrong arguments and if there is no
    model to read. JAX is imported here, not with the package.
    """
    from ddgan_jax.inference import load as models

    return models.load(path, num_steps=num_steps)
