"""Neural relation graph: how related an image is to the training images."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.scorers.bank import bank_rows, unit_length
from train.scorers.scorer import FitData, Scorer, ScorerSettings


class RelationSettings(ScorerSettings):
    """Knobs of `Relation`."""

    power: float = Field(default=1.0, gt=0)
    """Exponent of a relation. The larger, the more the closest images count."""
    threshold: float = Field(default=0.03, ge=0, lt=1)
    """Relations up to this count as none."""
    bank: int = Field(default=5000, ge=1)
    """Most training images that are kept to compare with."""


class Relation(Scorer):
    r"""Mean relation to training images, :math:`\frac1M \sum_i [r_i > t] \, r_i^a`.

    With :math:`r_i = \max(0, \cos(h, h_i)) \; p \cdot p_i`: alike in features and in class
    probabilities. Takes features (N, D), before any normalisation, and logits (N, C); returns (N,)
    float32 in [0, 1], larger = more in-distribution. The bank of M images is drawn with the run's
    seed. The published sum is M times this.

    References
    ----------
    Kim et al., 2023 (arXiv 2301.12321). Threshold and default are those of its authors' code.
    """

    needs_fit = True
    source = "Kim et al., 2023 (arXiv 2301.12321)"

    bank: Tensor
    """(D, M): columns of unit length."""
    probabilities: Tensor
    """(K, M)."""

    def __init__(self, settings: RelationSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or RelationSettings()
        self.declare("bank", "probabilities")

    def fit(self, data: FitData) -> None:
        """Keep the features and class probabilities of some training images."""
        rows = bank_rows(len(data.train.labels), most=self.settings.bank, seed=data.seed)
        self.bank = unit_length(data.train.features[rows]).T.contiguous()
        self.probabilities = torch.softmax(data.train.logits[rows], dim=1).T.contiguous()

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        likeness = (unit_length(features.float()) @ self.bank).clamp(min=0)
        agreement = torch.softmax(logits.float(), dim=1) @ self.probabilities
        relations = likeness * agreement
        counted = torch.where(relations > self.settings.threshold, relations, 0.0)
        return (counted**self.settings.power).mean(dim=1)
