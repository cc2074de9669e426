"""DICE: energy of a head of which only the weights that matter are left."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from train.scorers.head import ReshapedFeatures
from train.scorers.scorer import FitData, ScorerSettings


class DiceSettings(ScorerSettings):
    """Knobs of `Dice`."""

    sparsity: float = Field(default=0.9, ge=0, lt=1)
    """Share of the head's weights that are set to 0."""


class Dice(ReshapedFeatures):
    r"""Energy of a sparse head, :math:`\ln \sum_k e^{((M \odot W) h + b)_k}`.

    Takes features (N, D) and logits (N, C), which it ignores; returns (N,) float32, larger = more
    in-distribution. The mask M keeps the weights with the largest contributions
    :math:`W_{ku} \bar h_u`, the mean over the training images.

    References
    ----------
    Sun and Li, 2022 (arXiv 2111.09805).
    """

    score = "dice"
    source = "Sun and Li, 2022 (arXiv 2111.09805)"

    def __init__(self, settings: DiceSettings | None = None) -> None:
        super().__init__()
        self.sparsity = (settings or DiceSettings()).sparsity

    def fit(self, data: FitData) -> None:
        """Copy the head's weights, the largest contributions' alone.

        Raises
        ------
        RecipeError
            The head is not linear.
        """
        super().fit(data)
        contributions = self.weight.double() * data.train.features.mean(dim=0, dtype=torch.float64)
        # Not torch.quantile, which takes no more than 16 million numbers.
        bound = float(np.quantile(contributions.numpy(), self.sparsity))
        kept = contributions > bound if self.sparsity else torch.ones_like(contributions) > 0
        self.weight = torch.where(kept, self.weight, 0.0)

    def reshape(self, features: Tensor) -> Tensor:
        """Return the features as they are: it is the head that was changed."""
        return features
