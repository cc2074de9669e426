"""The networks: a residual backbone, features on request standardised, one linear classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from train.methods.losses import full_precision
from train.recipes import ModelRecipe
from train.vision import models
from train.weights import download_weights, is_file, load_backbone, read_weights

FeatureNorm = Literal["none", "zscore"]


@dataclass(frozen=True)
class Architecture:
    """One of torchvision's residual networks."""

    build: Callable[[], Any]
    weights: Any
    """The enumeration of the weights that torchvision publishes for it."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "resnet18": Architecture(models.resnet18, models.ResNet18_Weights),
        "resnet34": Architecture(models.resnet34, models.ResNet34_Weights),
        "resnet50": Architecture(models.resnet50, models.ResNet50_Weights),
    }
)
"""Every backbone by the name that recipes give it."""


class Classifier(nn.Module):
    """A backbone and a linear classifier on its features.

    Parameters
    ----------
    backbone : nn.Module
        Images (N, 3, H, W) to features (N, D).
    n_features, n_classes : int
        D and K.
    feature_norm : "none" or "zscore"
        Whether the classifier sees features as they are or `standardise`-d.
    sigma : float
        Standard deviation after ``zscore``.
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
        self.head = nn.Linear(n_features, n_classes)
        self.feature_norm = feature_norm
        self.sigma = sigma

    def features(self, images: Tensor) -> Tensor:
        """Return the backbone's features, (N, D), before any standardisation."""
        features: Tensor = self.backbone(images)
        return features

    def logits_from(self, features: Tensor) -> Tensor:
        """Return the logits, (N, K), of such features."""
        if self.feature_norm == "zscore":
            features = standardise(features, sigma=self.sigma)
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, K), of normalised images, (N, 3, H, W)."""
        return self.logits_from(self.features(images))


def standardise(features: Tensor, *, sigma: float) -> Tensor:
    r"""Return each sample's features with mean 0 and standard deviation sigma.

    :math:`\tilde h = \sigma (h - \bar h) / \sqrt{s^2 + 10^{-6}}`, with :math:`s^2` the unbiased
    variance over the D features of the sample. So :math:`\|\tilde h\| = \sigma \sqrt{D - 1}` for
    every sample whose features differ at all.

    Parameters
    ----------
    features : (N, D) float
    sigma : float

    Returns
    -------
    (N, D) float
        In float32 or better.

    Notes
    -----
    The constant is under the root, where the authors add it to the root: at equal features the
    gradient is then at most 1000 sigma, not a million.

    References
    ----------
    ASCOOD (arXiv 2411.10794), proposition 2.
    """
    values = full_precision(features)
    centred = values - values.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (values.shape[1] - 1)
    return sigma * centred / torch.sqrt(variance + 1e-6)


def build_classifier(recipe: ModelRecipe, n_classes: int) -> Classifier:
    """Return the model of a recipe, in train mode.

    Weights that are not pretrained, the classifier's always among them, are drawn from torch's
    global generator.

    Parameters
    ----------
    recipe : ModelRecipe
    n_classes : int

    Raises
    ------
    WeightsUnavailable
        The pretrained weights cannot be had or do not fit.
    """
    architecture = ARCHITECTURES[recipe.architecture]
    backbone = architecture.build()
    n_features: int = backbone.fc.in_features
    backbone.fc = nn.Identity()
    if recipe.stem == "small":
        _shrink_stem(backbone)
    if is_file(recipe.weights):
        state = read_weights(Path(recipe.weights))
        load_backbone(backbone, state, source=f"`{recipe.weights}`")
    elif recipe.weights != "none":
        state = download_weights(recipe.weights, known=architecture.weights)
        load_backbone(backbone, state, source=recipe.weights)
    return Classifier(
        backbone, n_features, n_classes, feature_norm=recipe.feature_norm, sigma=recipe.sigma
    )


def _shrink_stem(backbone: Any) -> None:
    """Keep the full resolution into the first stage: the other stem leaves 8 of 32 pixels."""
    backbone.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    backbone.maxpool = nn.Identity()
