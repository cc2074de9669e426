"""Energy, with the sign that makes it a score."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.scorers.scorer import Scorer, ScorerSettings


def log_sum_exp(logits: Tensor) -> Tensor:
    """Return the logarithm of the sum of the rows' exponentials: (N, C) to (N,)."""
    # Written out, because not every runtime subtracts the maximum inside its own logsumexp.
    largest = logits.amax(dim=1)
    return largest + torch.log(torch.exp(logits - largest.unsqueeze(1)).sum(dim=1))


class EnergySettings(ScorerSettings):
    """Knobs of `Energy`."""

    temperature: float = Field(default=1.0, gt=0)
    """T. Large ones make the score a mean of the logits, small ones their maximum."""


class Energy(Scorer):
    r"""Negated free energy, :math:`T \log \sum_k e^{z_k / T}`; larger = more in-distribution.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32.

    References
    ----------
    Liu et al., 2020 (arXiv 2010.03759), equation 4, where the energy itself is smaller for
    in-distribution images: the sign is turned here.
    """

    source = "Liu et al., 2020 (arXiv 2010.03759)"

    def __init__(self, settings: EnergySettings | None = None) -> None:
        super().__init__()
        self.temperature = (settings or EnergySettings()).temperature

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return self.temperature * log_sum_exp(logits.float() / self.temperature)
