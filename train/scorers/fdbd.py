"""fDBD: distance to the decision boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

from train.networks.classifier import Classifier
from train.scorers.scorer import FitData, Scorer, linear_head

_SMALLEST = 1e-8
"""Distances below this count as this."""


class Fdbd(Scorer):
    r"""Mean distance to the other classes' boundaries, by the distance from the mean feature.

    :math:`\frac{1}{K - 1} \sum_{k \ne \hat y} \frac{z_{\hat y} - z_k}{\|w_{\hat y} - w_k\| \,
    \|h - \bar h\|}`, where w are the head's weights and :math:`\bar h` is the mean over the
    training images. Takes features h (N, D), before any normalisation, and logits z (N, K); returns
    (N,) float32, at least 0, larger = more in-distribution. Classes whose weights are equal have no
    boundary between them and add nothing.

    Notes
    -----
    With a model that normalises its features before the head (``feature_norm``), the boundaries are
    those of the normalised features and the distance from the mean is that of the others, as in
    public implementations.

    References
    ----------
    Liu and Qin, 2024 (arXiv 2312.11536).
    """

    needs_fit = True
    source = "Liu and Qin, 2024 (arXiv 2312.11536)"

    centre: Tensor
    """(D,): the mean feature."""
    inverse: Tensor
    """(K, K): one by the distance of two classes' weights, 0 where they are equal."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("centre", "inverse")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a head that is not linear."""
        linear_head(model, "fdbd")

    def fit(self, data: FitData) -> None:
        """Find the training images' mean and the distances between the head's weights.

        Raises
        ------
        RecipeError
            The head is not linear.
        """
        weight, _ = data.linear_head("fdbd")
        # Not by the expanded square, which loses the digits of classes that are close.
        distances = torch.cdist(
            weight.double(), weight.double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        apart = distances > _SMALLEST
        self.inverse = torch.where(apart, 1 / torch.where(apart, distances, 1.0), 0.0).float()
        self.centre = data.train.features.mean(dim=0, dtype=torch.float64).float()

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        values = logits.float()
        margins = values.amax(dim=1, keepdim=True) - values
        distances = margins * self.inverse[values.argmax(dim=1)]
        away = torch.sqrt((features.float() - self.centre).square().sum(dim=1))
        others = max(1, values.shape[1] - 1)
        return distances.sum(dim=1) / (others * away.clamp(min=_SMALLEST))
