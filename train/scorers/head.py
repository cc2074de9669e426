"""Scores by the energy of a head that sees other features than it was trained on."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from train.networks.classifier import Classifier
from train.scorers.energy import log_sum_exp
from train.scorers.scorer import FitData, Scorer, linear_head


class ReshapedFeatures(Scorer):
    """Base of the scores that change the features and take the energy of the head's answer.

    The features are those pooled by the backbone, before any normalisation, and what comes of them
    goes straight into a copy of the linear head. So with a model that standardises or scales its
    features before the head (``feature_norm``) that step is skipped, as its authors skip it.
    """

    needs_fit = True
    score: ClassVar[str] = ""
    """What it is registered by, for messages."""

    weight: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("weight", "bias")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse a head that is not linear."""
        linear_head(model, self.score)

    def fit(self, data: FitData) -> None:
        """Copy the model's head.

        Raises
        ------
        RecipeError
            The head is not linear.
        """
        self.weight, self.bias = data.linear_head(self.score)

    @abstractmethod
    def reshape(self, features: Tensor) -> Tensor:
        """Return what the head is to see: (N, D) float32 to the same."""

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        reshaped = self.reshape(features.float())
        return log_sum_exp(nn.functional.linear(reshaped, self.weight, self.bias))
