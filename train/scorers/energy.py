"""Energy, with the sign that makes it a score."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.scorers.scorer import Scorer, ScorerSettings


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
        scaled = logits.float() / self.temperature
        # Written out, because not every runtime subtracts the maximum inside its own logsumexp.
        largest = scaled.amax(dim=1)
        spread = torch.exp(scaled - largest.unsqueeze(1)).sum(dim=1)
        return self.temperature * (largest + torch.log(spread))
