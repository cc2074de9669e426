"""SCALE: energy of features scaled by how much of them is in the largest."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from train.scorers.ash import largest, sharpening
from train.scorers.head import ReshapedFeatures
from train.scorers.scorer import ScorerSettings


class ScaleSettings(ScorerSettings):
    """Knobs of `Scale`."""

    percentile: float = Field(default=85.0, ge=0, lt=100)
    """How many percent of each image's features, the smallest, are left out of the second sum."""


class Scale(ReshapedFeatures):
    r"""Energy of scaled features, :math:`\ln \sum_k e^{(W h e^{s / s_S} + b)_k}`.

    Takes pooled features (N, D) and logits (N, C), which it ignores; returns (N,) float32, larger =
    more in-distribution. s is the sum of the image's features and :math:`s_S` the sum of its
    largest; see `train.scorers.ash.largest`. Other than in ASH-S none is pruned.

    References
    ----------
    Xu et al., 2024 (arXiv 2310.00227), placed after the last pooling.
    """

    score = "scale"
    source = "Xu et al., 2024 (arXiv 2310.00227)"

    def __init__(self, settings: ScaleSettings | None = None) -> None:
        super().__init__()
        self.percentile = (settings or ScaleSettings()).percentile

    def reshape(self, features: Tensor) -> Tensor:
        """Return the scaled features."""
        return features * sharpening(features, largest(features, percentile=self.percentile))
