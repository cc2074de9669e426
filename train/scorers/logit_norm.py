"""The length of the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from train.scorers.scorer import Scorer


class LogitNorm(Scorer):
    r"""Euclidean length of the logits, :math:`\|z\|_2`; larger = more in-distribution.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32, not negative.
    Networks trained by cross-entropy keep lengthening the logits of what they know. It says nothing
    about a network whose training fixes that length.

    References
    ----------
    Wei et al., 2022 (arXiv 2205.09310), on how cross-entropy makes the length grow.
    """

    source = "Wei et al., 2022 (arXiv 2205.09310)"

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return torch.sqrt(logits.float().square().sum(dim=1))
