"""KL matching: how close the class probabilities come to a class's typical ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from train.scorers.entropy import negated_entropy
from train.scorers.scorer import FitData, Scorer


class KlMatching(Scorer):
    r"""Negated divergence from the closest template, :math:`-\min_k \mathrm{KL}(p \| d_k)`.

    Takes features (N, D), which it ignores, and logits (N, C); returns (N,) float32 in nats, at
    most 0 but for rounding, larger = more in-distribution. The template :math:`d_k` is the mean of
    the class probabilities over the validation images that are *predicted* as k. A class that is
    predicted for none has no template and is left out.

    References
    ----------
    Hendrycks et al., 2022 (arXiv 1911.11132).
    """

    needs_fit = True
    source = "Hendrycks et al., 2022 (arXiv 1911.11132)"

    log_templates: Tensor
    """(K', K), a row for each class that was predicted."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("log_templates")

    def fit(self, data: FitData) -> None:
        """Average the validation images' probabilities by predicted class."""
        log_p = torch.log_softmax(data.validation.logits.double(), dim=1)
        predicted = log_p.argmax(dim=1)
        # In logarithms: a template has no zeros then, however certain the network is.
        rows = [
            torch.logsumexp(log_p[predicted == k], dim=0) - math.log(count)
            for k, count in enumerate(torch.bincount(predicted).tolist())
            if count
        ]
        self.log_templates = torch.stack(rows).float()

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        log_p = torch.log_softmax(logits.float(), dim=1)
        likeness = torch.exp(log_p) @ self.log_templates.T  # (N, K'): sum of p ln d
        return likeness.amax(dim=1) - negated_entropy(log_p)
