"""Maximum softmax probability."""

from __future__ import annotations

import torch
from torch import Tensor

from train.scorers.scorer import Scorer


class Msp(Scorer):
    r"""Maximum softmax probability, :math:`\max_k p_k`; larger = more in-distribution.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32 in [1/C, 1].
    Saturates at 1 for confident logits, where `Energy` and `MaxLogit` still tell images apart.

    References
    ----------
    Hendrycks and Gimpel, 2017 (arXiv 1610.02136), section 2.
    """

    source = "Hendrycks and Gimpel, 2017 (arXiv 1610.02136)"

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return torch.softmax(logits.float(), dim=1).amax(dim=1)
