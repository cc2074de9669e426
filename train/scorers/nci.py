"""NCI: how far a feature has collapsed onto its class's weight."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from train.networks.classifier import Classifier
from train.scorers.bank import unit_length
from train.scorers.scorer import FitData, Scorer, ScorerSettings, linear_head


class NciSettings(ScorerSettings):
    """Knobs of `Nci`."""

    alpha: float = Field(default=0.0001, ge=0)
    """Weight of the features' size. What is best depends on the number of features."""


class Nci(Scorer):
    r"""Likeness to the class's weight, :math:`w_{\hat y} \cdot \frac{h - \bar h}{\|h - \bar h\|}`.

    To which :math:`\alpha \|h\|_1` is added. Takes features h (N, D), before any normalisation, and
    logits (N, C), for the predicted class; returns (N,) float32, larger = more in-distribution.
    :math:`\bar h` is the mean over the training images. In a network trained to the end the centred
    features of a class align with its weight, and unknown images' lie near the origin.

    References
    ----------
    Liu and Qin, 2025 (arXiv 2311.01479).
    """

    needs_fit = True
    source = "Liu and Qin, 2025 (arXiv 2311.01479)"

    centre: Tensor
    weight: Tensor

    def __init__(self, settings: NciSettings | None = None) -> None:
        super().__init__()
        self.alpha = (settings or NciSettings()).alpha
        self.declare("centre", "weight")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a head that is not linear."""
        linear_head(model, "nci")

    def fit(self, data: FitData) -> None:
        """Copy the head's weights and find the training images' mean.

        Raises
        ------
        RecipeError
            The head is not linear.
        """
        self.weight, _ = data.linear_head("nci")
        self.centre = data.train.features.mean(dim=0, dtype=torch.float64).float()

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        values = features.float()
        weights = self.weight[logits.argmax(dim=1)]
        likeness = (unit_length(values - self.centre) * weights).sum(dim=1)
        return likeness + self.alpha * values.abs().sum(dim=1)
