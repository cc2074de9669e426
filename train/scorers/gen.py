"""Generalised entropy of the largest class probabilities."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.scorers.energy import log_sum_exp
from train.scorers.scorer import Scorer, ScorerSettings

_NONE = -1e30
"""Logit of what is left out of a sum: finite, so that no infinity meets another."""


class GenSettings(ScorerSettings):
    """Knobs of `Gen`."""

    gamma: float = Field(default=0.1, gt=0)
    """Exponent. Small ones let improbable classes count."""
    top: int = Field(default=100, ge=1)
    """M: how many of the most probable classes are summed over; all where there are fewer."""


class Gen(Scorer):
    r"""Negated generalised entropy, :math:`-\sum_{k \le M} p_{(k)}^\gamma (1 - p_{(k)})^\gamma`.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32, at most 0,
    larger = more in-distribution. :math:`p_{(k)}` is the k-th largest softmax probability. It is
    the sum, as published; some libraries take the mean.

    Notes
    -----
    At gamma = 0.1, a probability of 1e-38 still adds 2e-4 and one that was rounded to 0 adds
    nothing, and so it is with 1 - p of the predicted class. So everything is computed from
    logarithms, where nothing underflows.

    References
    ----------
    Liu, Lochman and Zach, 2023 (CVPR).
    """

    source = "Liu, Lochman and Zach, 2023 (CVPR)"

    def __init__(self, settings: GenSettings | None = None) -> None:
        super().__init__()
        settings = settings or GenSettings()
        self.gamma, self.top = settings.gamma, settings.top

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        ranked = torch.topk(logits.float(), logits.shape[1], dim=1).values
        total = log_sum_exp(ranked).unsqueeze(1)
        # All but the first have p <= 1/2, so only the first needs the sum of the others.
        none = torch.full_like(ranked[:, :1], _NONE)
        others = log_sum_exp(torch.cat([ranked[:, 1:], none], dim=1)).unsqueeze(1)
        log_p = ranked - total
        log_rest = torch.cat([others - total, torch.log1p(-torch.exp(log_p[:, 1:]))], dim=1)
        terms = torch.exp(self.gamma * (log_p + log_rest))
        return -terms[:, : self.top].sum(dim=1)
