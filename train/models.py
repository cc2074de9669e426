"""Building the network of a recipe: a residual backbone with a linear classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from train.networks.classifier import Classifier
from train.recipes import ModelRecipe
from train.vision import models
from train.weights import download_weights, is_file, load_backbone, read_weights


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
