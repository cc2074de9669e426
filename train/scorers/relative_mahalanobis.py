"""Mahalanobis distance to the nearest class, less the distance to all classes together."""

from __future__ import annotations

import torch
from torch import Tensor

from train.scorers.gaussian import Gaussian, GaussianSettings, fit_gaussian, nearest_distance
from train.scorers.scorer import FitData, Scorer


class RelativeMahalanobis(Scorer):
    r"""Mahalanobis score less that of a single Gaussian, :math:`-\min_k (M_k(f) - M_0(f))`.

    :math:`M_k` is the squared distance to class k under the covariance within classes, :math:`M_0`
    that to the mean of all images under their total covariance: what is unusual for every class
    alike, such as a bright image, cancels.

    Takes features (N, D) and logits (N, K), which it ignores; returns (N,) float32 of either sign,
    larger = more in-distribution. A class without a training image takes no part.

    References
    ----------
    Ren et al., 2021 (arXiv 2106.09022), equation 3.
    """

    takes = "features"
    needs_fit = True
    source = "Ren et al., 2021 (arXiv 2106.09022)"

    centre: Tensor
    whitening: Tensor
    means: Tensor
    background_whitening: Tensor
    background_mean: Tensor

    def __init__(self, settings: GaussianSettings | None = None) -> None:
        super().__init__()
        self.shrinkage = (settings or GaussianSettings()).shrinkage
        self.declare("centre", "whitening", "means", "background_whitening", "background_mean")

    def fit(self, data: FitData) -> None:
        """Learn both Gaussians of the training images' features."""
        features, labels = data.train.features, data.train.labels
        name, shrinkage = "relative_mahalanobis", self.shrinkage
        classes = fit_gaussian(features, labels, shrinkage=shrinkage, score=name)
        all_images = torch.zeros_like(labels)
        background = fit_gaussian(features, all_images, shrinkage=shrinkage, score=name)
        self.centre, self.whitening, self.means = classes.centre, classes.whitening, classes.means
        self.background_whitening = background.whitening
        self.background_mean = background.means

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        classes = Gaussian(self.centre, self.whitening, self.means)
        background = Gaussian(self.centre, self.background_whitening, self.background_mean)
        return nearest_distance(features, background) - nearest_distance(features, classes)
