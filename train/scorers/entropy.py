"""The entropy of the class probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from train.scorers.scorer import Scorer


class Entropy(Scorer):
    r"""Negated entropy, :math:`\sum_k p_k \ln p_k`; larger = more in-distribution.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32 in nats, in
    [-ln C, 0].

    References
    ----------
    Chan et al., 2021 (arXiv 2012.06575), where the entropy is larger for
    out-of-distribution pixels: the sign is turned here.
    """

    source = "Chan et al., 2021 (arXiv 2012.06575)"

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return negated_entropy(torch.log_softmax(logits.float(), dim=1))


def negated_entropy(log_probabilities: Tensor) -> Tensor:
    """Return the sum of p ln p over the classes: (N, C) to (N,); 0 where p underflows."""
    return (torch.exp(log_probabilities) * log_probabilities).sum(dim=1)
