"""ODIN's temperature without ODIN's gradient step."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.scorers.scorer import Scorer, ScorerSettings


class OdinTemperatureSettings(ScorerSettings):
    """Knobs of `OdinTemperature`."""

    temperature: float = Field(default=1000.0, gt=0)
    """T. The larger, the less the largest logit alone counts and the more its lead on the mean."""


class OdinTemperature(Scorer):
    r"""Maximum softmax at a high temperature, :math:`\max_k \mathrm{softmax}(z / T)_k`.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32 in [1/C, 1],
    larger = more in-distribution. It is ODIN with a step of size 0, so it needs no gradient and can
    be part of a graph. For T far above the logits it is about
    :math:`(1 + (\max_k z_k - \bar z) / T) / C`: scores differ in their last digits only, and are
    good for ranking.

    References
    ----------
    Liang et al., 2018 (arXiv 1706.02690), equation 1.
    """

    source = "Liang et al., 2018 (arXiv 1706.02690)"

    def __init__(self, settings: OdinTemperatureSettings | None = None) -> None:
        super().__init__()
        self.temperature = (settings or OdinTemperatureSettings()).temperature

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return torch.softmax(logits.float() / self.temperature, dim=1).amax(dim=1)
