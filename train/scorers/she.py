"""Simplified Hopfield energy: likeness to the stored pattern of the predicted class."""

from __future__ import annotations

import torch
from torch import Tensor

from train.methods.method import Embedded
from train.scorers.scorer import FitData, Scorer


class She(Scorer):
    r"""Inner product with the predicted class's pattern, :math:`h \cdot S_{\hat y}`.

    Takes features (N, D), before any normalisation, and logits (N, C), for the predicted class;
    returns (N,) float32, larger = more in-distribution. For the patterns see `class_patterns`.

    References
    ----------
    Zhang et al., 2023 (ICLR, OpenReview KkazG4lgKL), with the inner product.
    """

    needs_fit = True
    source = "Zhang et al., 2023 (ICLR)"

    patterns: Tensor
    """(K, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("patterns")

    def fit(self, data: FitData) -> None:
        """Store the training images' patterns."""
        self.patterns = class_patterns(data.train, n_classes=data.n_classes)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return (features.float() * self.patterns[logits.argmax(dim=1)]).sum(dim=1)


def class_patterns(embedded: Embedded, *, n_classes: int) -> Tensor:
    """Return each class's mean feature over its correctly classified images.

    Where none is classified correctly it is the mean over all of the class, and where the class has
    no image the mean over all images: no class may be without, since any can be predicted.

    Returns
    -------
    (K, D) float32
    """
    features, labels = embedded.features.double(), embedded.labels
    correct = embedded.logits.argmax(dim=1) == labels
    patterns = []
    for k in range(n_classes):
        mine = labels == k
        for rows in (mine & correct, mine, torch.ones_like(mine)):
            if bool(rows.any()):
                patterns.append(features[rows].mean(dim=0))
                break
    return torch.stack(patterns).float()
