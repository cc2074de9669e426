"""Distance to the k-th nearest training image."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from oodserve.errors import RecipeError
from train.networks.classifier import Classifier
from train.scorers.bank import bank_rows, unit_length
from train.scorers.scorer import FitData, Scorer, ScorerSettings


class KnnSettings(ScorerSettings):
    """Knobs of `Knn`."""

    k: int = Field(default=10, ge=1)
    """Which neighbour counts; fewer than a class has images in the bank, or all neighbours are far.
    The authors take 50 for CIFAR-10, with 5000 images in a class, and 200 for CIFAR-100."""
    bank_size: int = Field(default=10_000, ge=1)
    """Most training images to compare with; of more, so many are drawn with the run's seed. Time
    and size of the exported file grow with it, and `k` should shrink with the share kept."""


class Knn(Scorer):
    r"""Negated distance to the k-th nearest training image, :math:`-\|\hat f - \hat f_{(k)}\|_2`.

    :math:`\hat f = f / \|f\|_2`: features count by direction alone.

    Takes features (N, D) and logits (N, K), which it ignores; returns (N,) float32 in [-2, 0],
    larger = more in-distribution. The features are those before any normalisation of the model's.
    A training image is its own first neighbour.

    References
    ----------
    Sun et al., 2022 (arXiv 2204.06507), section 3, with a bank drawn without replacement.
    """

    takes = "features"
    needs_fit = True
    source = "Sun et al., 2022 (arXiv 2204.06507)"

    bank: Tensor

    def __init__(self, settings: KnnSettings | None = None) -> None:
        super().__init__()
        settings = settings or KnnSettings()
        self.k, self.bank_size = settings.k, settings.bank_size
        self.declare("bank")

    def check(self, model: Classifier, n_train: int) -> None:
        """Refuse more neighbours than the bank will have images."""
        images = min(n_train, self.bank_size)
        if images < self.k:
            raise RecipeError(
                f"`scorers.knn.k` = {self.k} neighbours cannot be found among {images} "
                "images; choose a smaller `k`"
            )

    def fit(self, data: FitData) -> None:
        """Keep the training images' directions, or as many as the bank holds.

        Raises
        ------
        RecipeError
            The bank has fewer than k images.
        """
        features = data.train.features
        self.check(data.model, len(features))
        rows = bank_rows(len(features), most=self.bank_size, seed=data.seed)
        self.bank = unit_length(features[rows].double()).float()

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        directions = unit_length(features.float())
        nearest = torch.topk(directions @ self.bank.T, self.k, dim=1).indices
        # From differences: 2 - 2 cos loses the digits of a short distance.
        differences = directions - self.bank[nearest[:, -1]]
        return -torch.sqrt(differences.square().sum(dim=1))
