"""A problem that any sensible score solves: four strong patterns, and images that show none.

The network is small but has the stages of a ResNet, so every score can be computed on it. Training
and fitting take about a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from train.draw import Draw
from train.methods.method import Embedded, Method, TrainingBatch
from train.methods.registry import MethodSettings, build_method
from train.networks.classifier import Classifier
from train.scorers.scorer import FitData, MapsBatch

N_CLASSES, SIDE, N_FEATURES = 4, 16, 24

SETTINGS: TypeAdapter[MethodSettings] = TypeAdapter(MethodSettings)


class Backbone(nn.Module):
    """Named as torchvision's ResNet, with one convolution for each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = stage(8, 8, stride=1)
        self.layer2 = stage(8, 12, stride=2)
        self.layer3 = stage(12, 16, stride=1)
        self.layer4 = stage(16, N_FEATURES, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        flow = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        flow = self.layer4(self.layer3(self.layer2(self.layer1(flow))))
        return torch.flatten(self.avgpool(flow), 1)


def stage(before: int, after: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


def patterns() -> Tensor:
    """Return (K, 3, S, S) patterns, none of which looks like another or like itself turned."""
    coarse = torch.randn(N_CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(11))
    return 1.5 * nn.functional.interpolate(coarse, size=SIDE, mode="nearest")


def known(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return images of the classes, of varying strength, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % N_CLASSES
    strength = 1 + 0.1 * torch.randn(count, 1, 1, 1, generator=generator)
    noise = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return patterns()[labels] * strength + 0.2 * noise, labels


def unknown(count: int, *, seed: int) -> Tensor:
    """Return images that show no pattern."""
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(count, 3, SIDE, SIDE, generator=generator)


@dataclass(frozen=True)
class Problem:
    """A trained network in eval mode and what scores are fitted on."""

    model: Classifier
    data: FitData


def embedded(model: Classifier, images: Tensor, labels: Tensor) -> Embedded:
    with torch.no_grad():
        features, logits = model.outputs(images)
    return Embedded(features, logits, labels)


def solve(method: str = "standard") -> Problem:
    """Return a network trained by plain cross-entropy and then by this method."""
    torch.manual_seed(5)
    model = Classifier(Backbone(), N_FEATURES, N_CLASSES)
    images, labels = known(160, seed=1)
    descend(model, build_method(SETTINGS.validate_python({"name": "standard"})), images, labels)
    if method != "standard":
        objective = build_method(SETTINGS.validate_python({"name": method}))
        objective.attach(model)
        model.eval()
        objective.initialise(model, lambda: embedded(model, images, labels))
        descend(model, objective, images, labels)
    model.eval().requires_grad_(requires_grad=False)
    return Problem(model, fit_data(model))


@torch.enable_grad()
def descend(model: Classifier, method: Method, images: Tensor, labels: Tensor) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    steps = 30
    for step in range(steps):
        draw = Draw(
            rng=np.random.default_rng(step),
            torch_generator=torch.Generator().manual_seed(step),
            epoch=1,
            epochs=1,
        )
        batch = TrainingBatch(images, labels, outliers=unknown(len(images), seed=1000 + step))
        terms = method.objective(model, batch, draw)
        optimizer.zero_grad()
        torch.autograd.backward(terms["loss"])
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()


def fit_data(model: Classifier) -> FitData:
    train, validation = known(160, seed=1), known(80, seed=2)
    return FitData(
        model=model,
        train=embedded(model, *train),
        validation=embedded(model, *validation),
        train_maps=lambda: maps_of(model, *train),
        validation_maps=lambda: maps_of(model, *validation),
        seed=0,
    )


@torch.no_grad()
def maps_of(model: Classifier, images: Tensor, labels: Tensor) -> Iterator[MapsBatch]:
    for start in range(0, len(images), 32):
        rows = slice(start, start + 32)
        maps, features = model.stage_maps(images[rows])
        yield MapsBatch(maps, model.logits_from(features), labels[rows])
