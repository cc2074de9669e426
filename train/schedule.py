"""Learning-rate schedules: pure functions of the step, so resuming needs no scheduler state."""

from __future__ import annotations

import math


def cosine(step: int, *, steps: int, highest: float, lowest: float) -> float:
    """Return the learning rate of one step of a cosine decay.

    Parameters
    ----------
    step : int
        Steps already taken, 0 to `steps`.
    steps : int
        Steps of the whole stage.
    highest, lowest : float
        Rate at step 0, and at the end; the end is an absolute rate, not a factor.

    Examples
    --------
    >>> [cosine(step, steps=2, highest=0.5, lowest=0.0) for step in (0, 1, 2)]
    [0.5, 0.25, 0.0]
    """
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
