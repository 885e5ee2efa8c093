"""Metrics are of finite numbers: some would pass NaN on, others take it for a point far away."""

import numpy as np

from ddgan_jax.errors import NotFiniteError


def require_finite(**arrays: np.ndarray) -> None:
    """Refuse arrays, named for the message, with NaN or infinity. Raises NotFiniteError."""
    for name, array in arrays.items():
        array = np.asarray(array)
        # Both are NaN where one number is; no array of their size is made.
        if array.size and not np.isfinite([array.min(), array.max()]).all():
            raise NotFiniteError(f"{name}: these numbers are not finite, so that no metric is")
