"""Logarithms near 0 that neither overflow nor cancel, in value and in gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from train.precision import full_precision

CLOSEST = 1e-4
"""How near to 0 `log_one_minus_exp` takes its argument to be at most: it bounds the value by 9.2
and the gradient by 1e4."""


def log_one_minus_exp(values: Tensor) -> Tensor:
    r"""Return :math:`\log(1 - e^h)` of h below 0, element by element.

    Values above -`CLOSEST`, positive ones by rounding among them, count as -`CLOSEST` and get no
    gradient.

    Parameters
    ----------
    values : Tensor of float

    Returns
    -------
    Tensor of float
        Of the same shape, in float32 or better; finite, with a finite gradient, for finite values.

    Notes
    -----
    Above -ln 2 it is ``log(-expm1(h))``, below it ``log1p(-exp(h))``. Each branch is computed for
    values of its own side alone: `torch.where` would multiply the other branch's infinite
    gradient by 0.
    """
    clamped = full_precision(values).clamp(max=-CLOSEST)
    near = clamped > -math.log(2)
    inside = torch.where(near, clamped, -0.5)
    outside = torch.where(near, -1.0, clamped)
    return torch.where(near, torch.log(-torch.expm1(inside)), torch.log1p(-torch.exp(outside)))
