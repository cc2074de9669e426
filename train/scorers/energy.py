"""Energy, with the sign that makes it a score."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Energy(nn.Module):
    r"""Negated free energy, :math:`T \log \sum_k e^{z_k / T}`; larger = more in-distribution.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32.

    Parameters
    ----------
    temperature : float
        T, positive.

    Raises
    ------
    ValueError
        `temperature` is not a positive number.

    References
    ----------
    Liu et al., 2020 (arXiv 2010.03759), equation 4, where the energy itself is smaller for
    in-distribution images: the sign is turned here.
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0.0 < temperature < math.inf:
            raise ValueError(f"`temperature` = {temperature!r} is not a positive number")
        self.temperature = temperature

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        scaled = logits.float() / self.temperature
        # Written out, because not every runtime subtracts the maximum inside its own logsumexp.
        largest = scaled.amax(dim=1)
        spread = torch.exp(scaled - largest.unsqueeze(1)).sum(dim=1)
        return self.temperature * (largest + torch.log(spread))
