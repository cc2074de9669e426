"""ASH: energy of features of which only each image's largest are left."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.scorers.head import ReshapedFeatures
from train.scorers.scorer import ScorerSettings

MAX_EXPONENT = 30.0
"""Largest ratio of sums that is raised to a power of e. Reached where the pruned features hold 97 %
of the sum, which needs a percentile above 96; it keeps float32 from overflowing."""


class AshBSettings(ScorerSettings):
    """Knobs of `AshB`."""

    percentile: float = Field(default=65.0, ge=0, lt=100)
    """How many percent of each image's features are pruned, the smallest first."""


class AshSSettings(ScorerSettings):
    """Knobs of `AshS`."""

    percentile: float = Field(default=90.0, ge=0, lt=100)
    """How many percent of each image's features are pruned, the smallest first."""


class AshB(ReshapedFeatures):
    r"""ASH-B: energy of pruned features made equal, :math:`h'_u = [u \in S] \sum_v h_v / |S|`.

    Takes pooled features (N, D) and logits (N, C), which it ignores; returns (N,) float32, larger =
    more in-distribution. S are the image's largest features; see `largest`.

    References
    ----------
    Djurisic et al., 2023 (arXiv 2209.09858), variant ASH-B, placed after the last pooling.
    """

    score = "ash_b"
    source = "Djurisic et al., 2023 (arXiv 2209.09858)"

    def __init__(self, settings: AshBSettings | None = None) -> None:
        super().__init__()
        self.percentile = (settings or AshBSettings()).percentile

    def reshape(self, features: Tensor) -> Tensor:
        """Return the kept features, all equal, with the sum that all had before."""
        kept = largest(features, percentile=self.percentile).float()
        share = features.sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp(min=1)
        return kept * share


class AshS(ReshapedFeatures):
    r"""ASH-S: energy of pruned, scaled features, :math:`h'_u = [u \in S] h_u e^{s / s_S}`.

    Takes pooled features (N, D) and logits (N, C), which it ignores; returns (N,) float32, larger =
    more in-distribution. S are the image's largest features (see `largest`), s the sum of all and
    :math:`s_S` the sum of those.

    References
    ----------
    Djurisic et al., 2023 (arXiv 2209.09858), variant ASH-S, placed after the last pooling.
    """

    score = "ash_s"
    source = "Djurisic et al., 2023 (arXiv 2209.09858)"

    def __init__(self, settings: AshSSettings | None = None) -> None:
        super().__init__()
        self.percentile = (settings or AshSSettings()).percentile

    def reshape(self, features: Tensor) -> Tensor:
        """Return the kept features, scaled, and 0 for the others."""
        kept = largest(features, percentile=self.percentile)
        return torch.where(kept, features, 0.0) * sharpening(features, kept)


def largest(features: Tensor, *, percentile: float) -> Tensor:
    """Return which features of each image are kept: (N, D) bool.

    These are the :math:`D - [D p / 100]` largest, of which only the positive ones. Where several
    are equal at the end of the list, all of them are kept: which of two equal features comes first
    is up to the runtime, and a score must not be.

    Parameters
    ----------
    features : (N, D) float
    percentile : float
        In percent, at least 0 and below 100. At least one feature is kept.
    """
    size = features.shape[1]
    count = max(1, size - round(size * percentile / 100))
    smallest = torch.topk(features, count, dim=1).values[:, -1:]
    return (features >= smallest) & (features > 0)


def sharpening(features: Tensor, kept: Tensor) -> Tensor:
    """Return e to the sum of all features by the sum of those kept: (N, 1); e where none is."""
    whole = features.sum(dim=1, keepdim=True)
    part = torch.where(kept, features, 0.0).sum(dim=1, keepdim=True)
    ratio = torch.where(part > 0, whole / torch.where(part > 0, part, 1.0), 1.0)
    return torch.exp(ratio.clamp(max=MAX_EXPONENT))
