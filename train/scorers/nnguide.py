"""NNGuide: energy, guided by how close the nearest training images are."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from train.scorers.bank import bank_rows, unit_length
from train.scorers.energy import log_sum_exp
from train.scorers.scorer import FitData, Scorer, ScorerSettings


class NNGuideSettings(ScorerSettings):
    """Knobs of `NNGuide`."""

    k: int = Field(default=100, ge=1)
    """How many of the bank's images guide; all where it holds fewer."""
    alpha: float = Field(default=0.01, gt=0, le=1)
    """Share of the training images that the bank keeps."""
    smallest_bank: int = Field(default=1000, ge=1)
    """The bank keeps as many images as this even if their share is larger than alpha."""


class NNGuide(Scorer):
    r"""Energy times guidance, :math:`E(x) \cdot \frac1k \sum_{i \in N_k} E(x_i) \cos(h, h_i)`.

    Takes features (N, D), before any normalisation, and logits (N, C); returns (N,) float32, larger
    = more in-distribution. E is the log-sum-exp of the logits. :math:`N_k` are the k training
    images of the bank with the largest :math:`E(x_i) \cos(h, h_i)`. The bank is drawn with the
    run's seed. Where energies are negative the product has no meaning; cross-entropy makes them
    positive.

    References
    ----------
    Park et al., 2023 (arXiv 2309.14888).
    """

    needs_fit = True
    source = "Park et al., 2023 (arXiv 2309.14888)"

    bank: Tensor
    """(D, M): columns of unit length, times their energies."""

    def __init__(self, settings: NNGuideSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or NNGuideSettings()
        self.declare("bank")

    def fit(self, data: FitData) -> None:
        """Keep the features and energies of some training images."""
        count = len(data.train.labels)
        most = max(math.ceil(self.settings.alpha * count), self.settings.smallest_bank)
        rows = bank_rows(count, most=most, seed=data.seed)
        energies = log_sum_exp(data.train.logits[rows]).unsqueeze(1)
        # Transposed once, here, and not for each image.
        self.bank = (unit_length(data.train.features[rows]) * energies).T.contiguous()

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        likeness = unit_length(features.float()) @ self.bank
        k = min(self.settings.k, self.bank.shape[1])
        guidance = torch.topk(likeness, k, dim=1).values.mean(dim=1)
        return guidance * log_sum_exp(logits.float())
