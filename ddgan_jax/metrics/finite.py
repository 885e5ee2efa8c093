"""Refuse numbers that are not finite: some metrics pass NaN on, others take it for a point."""

import numpy as np

from ddgan_jax.errors import NotFiniteError


def require_finite(**arrays: np.ndarray) -> None:
    """Raise NotFiniteError, which names the array, if one holds NaN or infinity."""
    for name, array in arrays.items():
        array = np.asarray(array)
        # The minimum and the maximum are NaN if any number is. An array of booleans as large as the
        # features would take memory that there may not be.
        if array.size and not np.isfinite([array.min(), array.max()]).all():
            raise NotFiniteError(f"{name}: these numbers are not finite, so that no metric is")
