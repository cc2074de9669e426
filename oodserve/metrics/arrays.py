"""What every metric asks of the arrays it is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oodserve.errors import NonFiniteScore


def ascending(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    """Return scores sorted, in float64; see `finite` for what is refused."""
    return np.sort(finite(name, scores))


def finite(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    """Return scores in float64, as they come.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    scores : (N,) float
        At least one.

    Raises
    ------
    ValueError
        Not one-dimensional, or empty.
    NonFiniteScore
        A score is NaN or infinite.
    """
    values: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"`{name}` has shape {values.shape}; expected (N,) with N >= 1")
    if not np.isfinite(values).all():
        bad = values.size - int(np.isfinite(values).sum())
        raise NonFiniteScore(
            f"{bad} of {values.size} numbers in `{name}` are NaN or infinite; expected finite ones"
        )
    return values
