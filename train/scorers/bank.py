"""Which training images a score keeps to compare with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def bank_rows(rows: int, *, most: int, seed: int) -> Tensor:
    """Return at most so many different row numbers, drawn evenly: ascending int64.

    Parameters
    ----------
    rows : int
        How many there are to draw from.
    most : int
        All are returned where there are no more than this.
    seed : int
        The same seed draws the same rows.
    """
    if rows <= most:
        return torch.arange(rows)
    chosen = np.random.default_rng(seed).choice(rows, size=most, replace=False)
    return torch.from_numpy(np.sort(chosen))


def unit_length(features: Tensor) -> Tensor:
    """Return features (N, D) scaled to length 1; zero where they are zero."""
    # The largest first: squares of large features overflow, those of small ones vanish.
    largest = features.abs().amax(dim=1, keepdim=True)
    scaled = features / torch.where(largest > 0, largest, 1.0)
    length = torch.sqrt(scaled.square().sum(dim=1, keepdim=True))
    return scaled / torch.where(length > 0, length, 1.0)
