"""ReAct: energy of features that were cut off above."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from train.scorers.head import ReshapedFeatures
from train.scorers.scorer import FitData, ScorerSettings


class ReactSettings(ScorerSettings):
    """Knobs of `React`."""

    percentile: float = Field(default=90.0, gt=0, le=100)
    """Percentile of all training images' features, taken together, that is the bound."""


class React(ReshapedFeatures):
    r"""Energy of rectified features, :math:`\ln \sum_k e^{(W \min(h, c) + b)_k}`.

    Takes features (N, D) and logits (N, C), which it ignores; returns (N,) float32, larger = more
    in-distribution. The bound c is a percentile of the in-distribution features: a few units that
    fire far above it make unknown images look certain. Features are bounded after pooling;
    bounding the map before it gives another score.

    References
    ----------
    Sun et al., 2021 (arXiv 2111.12797), with the energy as its score.
    """

    score = "react"
    source = "Sun et al., 2021 (arXiv 2111.12797)"

    bound: Tensor

    def __init__(self, settings: ReactSettings | None = None) -> None:
        super().__init__()
        self.percentile = (settings or ReactSettings()).percentile
        self.declare("bound")

    def fit(self, data: FitData) -> None:
        """Copy the head and find the bound on the training images.

        Raises
        ------
        RecipeError
            The head is not linear.
        """
        super().fit(data)
        # Not torch.quantile, which takes no more than 16 million numbers.
        bound = np.percentile(data.train.features.numpy(), self.percentile)
        self.bound = torch.tensor(float(bound))

    def reshape(self, features: Tensor) -> Tensor:
        """Return the features, none above the bound."""
        return torch.minimum(features, self.bound)
