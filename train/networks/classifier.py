"""A backbone, a head on its features, and heads that only training needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.networks.norms import FeatureNorm, normalise_features

STAGES = ("layer1", "layer2", "layer3", "layer4")
"""The residual stages whose outputs are `Classifier.stage_maps`."""

Maps = tuple[Tensor, ...]
"""One (N, C_l, H_l, W_l) tensor per stage."""


class Classifier(nn.Module):
    """A backbone and a classifier on its features.

    Parameters
    ----------
    backbone : nn.Module
        Images (N, 3, H, W) to features (N, D).
    n_features, n_classes : int
        D and K.
    feature_norm : "none", "l2" or "zscore"
        What is done to the features before the head; see `train.networks.norms`.
    sigma : float
        Standard deviation after ``zscore``; see `scale_to_length` for ``l2``.

    Attributes
    ----------
    head : nn.Module
        (N, D) to (N, K). Linear, unless a method put its own there.
    auxiliary : nn.ModuleDict
        Heads that methods train beside it, by name.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int,
        *,
        feature_norm: FeatureNorm = "none",
        sigma: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module = nn.Linear(n_features, n_classes)
        self.auxiliary = nn.ModuleDict()
        self.n_features = n_features
        self.n_classes = n_classes
        self.feature_norm: FeatureNorm = feature_norm
        self.sigma = sigma

    def features(self, images: Tensor) -> Tensor:
        """Return the backbone's features, (N, D), before any normalisation."""
        features: Tensor = self.backbone(images)
        return features

    def stage_maps(self, images: Tensor) -> tuple[Maps, Tensor]:
        """Return the output of each residual stage, and the features, from one pass.

        Returns
        -------
        maps : tuple of (N, C_l, H_l, W_l) float
            In the order of `STAGES`.
        features : (N, D) float
            The mean of the last one over its pixels.
        """
        net = self.backbone.get_submodule
        flow = net("maxpool")(net("relu")(net("bn1")(net("conv1")(images))))
        maps = []
        for stage in STAGES:
            flow = net(stage)(flow)
            maps.append(flow)
        return tuple(maps), torch.flatten(net("avgpool")(flow), 1)

    def logits_from(self, features: Tensor) -> Tensor:
        """Return the logits, (N, K), of such features."""
        logits: Tensor = self.head(
            normalise_features(features, self.feature_norm, sigma=self.sigma)
        )
        return logits

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, D) and logits (N, K) of normalised images, (N, 3, H, W)."""
        features = self.features(images)
        return features, self.logits_from(features)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, K), of normalised images, (N, 3, H, W)."""
        return self.logits_from(self.features(images))
