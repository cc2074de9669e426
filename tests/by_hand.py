"""A small classifier twice: as a torch module, and as NumPy arithmetic in float64.

Flatten, Linear, BatchNorm, tanh, on request z-score, Linear. The second is written from the
formulas, so that what a test computes with it owes nothing to torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.methods.method import Draw, TrainingBatch
from train.networks.classifier import Classifier

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

BATCH, HEIGHT, WIDTH, FEATURES, CLASSES = 5, 4, 6, 7, 3
PIXELS = 3 * HEIGHT * WIDTH
SEED = 11
SIGMA = 0.5


def network(*, zscore: bool) -> Classifier:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(FEATURES)
    for values, low, high in (
        (norm.weight, 0.5, 2.0),
        (norm.bias, -1.0, 1.0),
        (norm.running_mean, -0.5, 0.5),
        (norm.running_var, 0.5, 2.0),
    ):
        assert values is not None
        nn.init.uniform_(values, low, high)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, FEATURES), norm, nn.Tanh())
    model = Classifier(
        backbone,
        FEATURES,
        CLASSES,
        feature_norm="zscore" if zscore else "none",
        sigma=SIGMA,
    )
    return model.double().train()


@dataclass(frozen=True)
class Net:
    """The same network on NumPy arrays."""

    values: dict[str, Array]
    zscore: bool

    @classmethod
    def of(cls, model: Classifier) -> Net:
        values = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
        return cls(values=values, zscore=model.feature_norm == "zscore")

    def logits(self, images: Array, *, train: bool = True) -> Array:
        return self.head(np.tanh(self.normed(images, train=train)))

    def normed(self, images: Array, *, train: bool) -> Array:
        v = self.values
        hidden = images.reshape(len(images), -1) @ v["backbone.1.weight"].T + v["backbone.1.bias"]
        mean = hidden.mean(axis=0) if train else v["backbone.2.running_mean"]
        variance = hidden.var(axis=0) if train else v["backbone.2.running_var"]
        scaled = (hidden - mean) / np.sqrt(variance + 1e-5)
        return scaled * v["backbone.2.weight"] + v["backbone.2.bias"]

    def head(self, features: Array) -> Array:
        if self.zscore:
            deviation = np.sqrt(features.var(axis=1, ddof=1, keepdims=True) + 1e-6)
            features = SIGMA * (features - features.mean(axis=1, keepdims=True)) / deviation
        return features @ self.values["head.weight"].T + self.values["head.bias"]

    def true_class_gradient(self, images: Array, labels: Labels) -> Array:
        """Return d logit_y / d image by the chain rule, in eval mode, one image at a time."""
        v = self.values
        gradients = []
        for image, label in zip(images, labels, strict=True):
            normed = self.normed(image[None], train=False)[0]
            features = np.tanh(normed)
            upstream = v["head.weight"][label]
            if self.zscore:
                centred = features - features.mean()
                deviation = np.sqrt(features.var(ddof=1) + 1e-6)
                jacobian = (np.eye(FEATURES) - 1 / FEATURES) / deviation
                jacobian -= np.outer(centred, centred) / ((FEATURES - 1) * deviation**3)
                upstream = SIGMA * upstream @ jacobian
            scale = v["backbone.2.weight"] / np.sqrt(v["backbone.2.running_var"] + 1e-5)
            hidden = upstream * (1 - features**2) * scale
            gradients.append((hidden @ v["backbone.1.weight"]).reshape(image.shape))
        return np.stack(gradients)


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def hard(logits: Array, labels: Labels) -> float:
    return float(
        np.mean([-row[label] for row, label in zip(log_softmax(logits), labels, strict=True)])
    )


def soft(logits: Array, targets: Array) -> float:
    return float(-(targets * log_softmax(logits)).sum(axis=1).mean())


def distance(kind: str, left: Array, right: Array) -> float:
    if kind == "mse":
        return float(((left - right) ** 2).mean())
    return float(np.mean([np.sqrt(((a - b) ** 2).sum()) for a, b in zip(left, right, strict=True)]))


@dataclass(frozen=True)
class Case:
    """A batch in NumPy."""

    images: Array
    labels: Labels
    outliers: Array

    @classmethod
    def draw(cls, seed: int = 0) -> Case:
        rng = np.random.default_rng(seed)
        shape = (BATCH, 3, HEIGHT, WIDTH)
        return cls(
            images=rng.normal(size=shape),
            labels=rng.integers(CLASSES, size=BATCH),
            outliers=rng.normal(1, 2, size=shape),
        )

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return images and labels."""
        return torch.from_numpy(self.images.copy()), torch.from_numpy(self.labels.copy())

    def batch(self) -> TrainingBatch:
        images, labels = self.tensors()
        return TrainingBatch(images, labels, outliers=torch.from_numpy(self.outliers.copy()))


def draw(*, epoch: int = 1, epochs: int = 1) -> Draw:
    return Draw(
        rng=np.random.default_rng(SEED),
        torch_generator=torch.Generator().manual_seed(SEED),
        epoch=epoch,
        epochs=epochs,
    )
