"""Mahalanobis distance in several stages of the network."""

from __future__ import annotations

import torch
from torch import Tensor

from train.networks.classifier import STAGES, Maps
from train.scorers.gaussian import Gaussian, GaussianSettings, fit_gaussian, nearest_distance
from train.scorers.scorer import FitData, Scorer

PARTS = ("centre", "whitening", "means")


class MahalanobisLayers(Scorer):
    r"""Sum over the stages of the Mahalanobis scores, :math:`-\sum_l \min_k M_{lk}(f_l)`.

    :math:`f_l` is the mean of stage l's map over its pixels, and each stage has means and a
    covariance of its own. All weigh the same: the paper fits the weights on images from outside
    the classes, of which there are none here.

    Takes stage maps, (N, C_l, H_l, W_l) each, and logits (N, K), which it ignores; returns (N,)
    float32, at most 0, larger = more in-distribution. On images like the training's stage l
    contributes about -C_l. A class without a training image takes no part.

    References
    ----------
    Lee et al., 2018 (arXiv 1807.03888), section 2.2, without the step on the input.
    """

    takes = "maps"
    needs_fit = True
    source = "Lee et al., 2018 (arXiv 1807.03888)"

    def __init__(self, settings: GaussianSettings | None = None) -> None:
        super().__init__()
        self.shrinkage = (settings or GaussianSettings()).shrinkage
        self.declare(*(f"{part}_{stage}" for stage in STAGES for part in PARTS))

    def fit(self, data: FitData) -> None:
        """Learn each stage's class means and covariance on the training images."""
        pooled: list[list[Tensor]] = [[] for _ in STAGES]
        labels = []
        for batch in data.train_maps():
            for features, stage_map in zip(pooled, batch.maps, strict=True):
                features.append(stage_map.mean(dim=(2, 3)))
            labels.append(batch.labels)
        for stage, features in zip(STAGES, pooled, strict=True):
            fitted = fit_gaussian(
                torch.cat(features), torch.cat(labels),
                shrinkage=self.shrinkage, score="mahalanobis_layers",
            )  # fmt: skip
            for part in PARTS:
                setattr(self, f"{part}_{stage}", getattr(fitted, part))

    def forward(self, maps: Maps, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        distances = [
            nearest_distance(stage_map.float().mean(dim=(2, 3)), self._gaussian(stage))
            for stage, stage_map in zip(STAGES, maps, strict=True)
        ]
        return -torch.stack(distances).sum(dim=0)

    def _gaussian(self, stage: str) -> Gaussian:
        return Gaussian(*(self.get_buffer(f"{part}_{stage}") for part in PARTS))
