"""Mahalanobis distance to the nearest class mean."""

from __future__ import annotations

from torch import Tensor

from train.scorers.gaussian import Gaussian, GaussianSettings, fit_gaussian, nearest_distance
from train.scorers.scorer import FitData, Scorer


class Mahalanobis(Scorer):
    r"""Negated distance to the nearest class, :math:`-\min_k (f-\mu_k)^\top\Sigma^{-1}(f-\mu_k)`.

    Takes features (N, D) and logits (N, K), which it ignores; returns (N,) float32, at most 0,
    larger = more in-distribution. On images like the training's it is about -D. The features are
    those before any normalisation, the labels the true ones; a class without a training image
    takes no part.

    References
    ----------
    Lee et al., 2018 (arXiv 1807.03888), equation 2, on the last layer and without the step on the
    input. Without the factor 1/2 of the authors' code.
    """

    takes = "features"
    needs_fit = True
    source = "Lee et al., 2018 (arXiv 1807.03888)"

    centre: Tensor
    whitening: Tensor
    means: Tensor

    def __init__(self, settings: GaussianSettings | None = None) -> None:
        super().__init__()
        self.shrinkage = (settings or GaussianSettings()).shrinkage
        self.declare("centre", "whitening", "means")

    def fit(self, data: FitData) -> None:
        """Learn the class means and the covariance of the training images' features."""
        fitted = fit_gaussian(
            data.train.features, data.train.labels, shrinkage=self.shrinkage, score="mahalanobis"
        )
        self.centre, self.whitening, self.means = fitted.centre, fitted.whitening, fitted.means

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return -nearest_distance(features, Gaussian(self.centre, self.whitening, self.means))
