"""Training that has run into NaN or an infinity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from oodserve.errors import RecipeError


class Diverged(RecipeError):
    """The loss, the weights or the statistics of BatchNorm are not finite any more."""


def are_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether all floating-point tensors are; the others, such as counts, are not read."""
    found = [value.isfinite().all() for value in tensors.values() if value.is_floating_point()]
    return not found or bool(torch.stack(found).all())
