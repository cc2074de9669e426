"""How far correlations between channels leave the range that they have in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from train.networks.classifier import STAGES, Maps
from train.scorers.scorer import FitData, MapsBatch, Scorer, ScorerSettings

SMALLEST = 1e-6
"""Added to a bound before it divides."""


class GramSettings(ScorerSettings):
    """Knobs of `Gram`."""

    orders: Annotated[
        tuple[Annotated[int, Field(ge=1, le=10)], ...], Field(min_length=1, validate_default=True)
    ] = (1, 2, 3, 4, 5)
    """Powers of the activations whose correlations are compared. The authors take 1 to 10."""
    quantile: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of a class's training images that may lie outside its range at either end. 0 for the
    smallest and largest value seen, which widen with the number of images; above 0 the fit holds
    all correlations of the training images in memory."""

    @field_validator("orders")
    @classmethod
    def _differ(cls, orders: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(orders)) < len(orders):
            raise ValueError("name each order once")
        return orders


class Gram(Scorer):
    r"""Negated deviation of the stages' Gram matrices from their range for the predicted class.

    For stage l with channels :math:`F_c` (over the pixels s) and order p,
    :math:`g_c = \left(\sum_{c'} \sum_s F_{cs}^p F_{c's}^p\right)^{1/p}` with its sign. A value
    below the smallest, or above the largest, that training images predicted as the same class had
    deviates by its distance from that bound over the bound. Deviations are summed over channels
    and orders, divided by the largest softmax probability and by their mean on validation images,
    and summed over stages.

    Takes stage maps, (N, C_l, H_l, W_l) each, and logits (N, K); returns (N,) float32, at most 0,
    larger = more in-distribution; 0 for all images without a deviation. A class that was predicted
    for no training image has the range of all classes together. A stage in which no validation
    image deviates is not rescaled.

    References
    ----------
    Sastry and Oore, 2020 (arXiv 1912.12510), equations 1 to 5, on the outputs of the stages alone,
    as row sums, which is what their code compares.
    """

    takes = "maps"
    needs_fit = True
    source = "Sastry and Oore, 2020 (arXiv 1912.12510)"

    typical: Tensor

    def __init__(self, settings: GramSettings | None = None) -> None:
        super().__init__()
        settings = settings or GramSettings()
        self.orders, self.quantile = settings.orders, settings.quantile
        self.declare(*(f"{bound}_{stage}" for stage in STAGES for bound in ("low", "high")))
        self.declare("typical")

    def fit(self, data: FitData) -> None:
        """Learn the ranges on the training images and the scale on the validation images."""
        if self.quantile:
            ranges = self._quantiles(data.train_maps(), data.n_classes)
        else:
            ranges = self._extremes(data.train_maps(), data.n_classes)
        for stage, (low, high) in zip(STAGES, ranges, strict=True):
            setattr(self, f"low_{stage}", low)
            setattr(self, f"high_{stage}", high)
        parts = [self._deviations(batch.maps, batch.logits) for batch in data.validation_maps()]
        mean = torch.cat(parts).double().mean(dim=0)
        self.typical = torch.where(mean > 0, mean, 1.0).float()

    def forward(self, maps: Maps, logits: Tensor) -> Tensor:
        """Return the score of each row."""
        return -(self._deviations(maps, logits) / self.typical).sum(dim=1)

    def _deviations(self, maps: Maps, logits: Tensor) -> Tensor:
        """Return each stage's deviation over the largest softmax probability, (N, L)."""
        values = logits.float()
        predicted = values.argmax(dim=1)
        deviations = []
        for stage, stage_map in zip(STAGES, maps, strict=True):
            vectors = gram_vectors(stage_map, self.orders)
            low = self.get_buffer(f"low_{stage}")[predicted]
            high = self.get_buffer(f"high_{stage}")[predicted]
            under = torch.relu(low - vectors) / (low.abs() + SMALLEST)
            over = torch.relu(vectors - high) / (high.abs() + SMALLEST)
            deviations.append((under + over).sum(dim=(1, 2)))
        certainty = torch.softmax(values, dim=1).amax(dim=1, keepdim=True)
        return torch.stack(deviations, dim=1) / certainty

    def _extremes(
        self, batches: Iterable[MapsBatch], n_classes: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Return each stage's smallest and largest values, (K, P, C), holding one batch at once."""
        lows: list[Tensor] = []
        highs: list[Tensor] = []
        for batch in batches:
            predicted = batch.logits.argmax(dim=1)
            for place, stage_map in enumerate(batch.maps):
                vectors = gram_vectors(stage_map, self.orders)
                if place == len(lows):
                    shape = (n_classes, *vectors.shape[1:])
                    lows.append(torch.full(shape, torch.inf))
                    highs.append(torch.full(shape, -torch.inf))
                for label in set(predicted.tolist()):
                    own = vectors[predicted == label]
                    lows[place][label] = torch.minimum(lows[place][label], own.amin(dim=0))
                    highs[place][label] = torch.maximum(highs[place][label], own.amax(dim=0))
        for low, high in zip(lows, highs, strict=True):
            never = torch.isinf(low[:, 0, 0])
            low[never], high[never] = low.amin(dim=0), high.amax(dim=0)
        return list(zip(lows, highs, strict=True))

    def _quantiles(
        self, batches: Iterable[MapsBatch], n_classes: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Return each stage's quantiles, (K, P, C), interpolated linearly."""
        parts: list[list[Tensor]] = [[] for _ in STAGES]
        labels = []
        for batch in batches:
            labels.append(batch.logits.argmax(dim=1))
            for place, stage_map in enumerate(batch.maps):
                parts[place].append(gram_vectors(stage_map, self.orders))
        predicted = torch.cat(labels).numpy()
        ends = [self.quantile, 1 - self.quantile]
        ranges = []
        for part in parts:
            vectors = torch.cat(part).numpy()
            own = [vectors[predicted == label] for label in range(n_classes)]
            bounds = np.stack(
                [np.quantile(rows if len(rows) else vectors, ends, axis=0) for rows in own], axis=1
            )  # (2, K, P, C)
            low, high = torch.from_numpy(bounds).float()
            ranges.append((low, high))
        return ranges


def gram_vectors(stage_map: Tensor, orders: Sequence[int]) -> Tensor:
    r"""Return the row sums of the Gram matrices, :math:`|\cdot|^{1/p}` with their sign: (N, P, C).

    Row sums need no C x C matrix: :math:`\sum_{c'} F_c F_{c'}^\top = F_c (\sum_{c'} F_{c'})^\top`.
    Activations are divided by their largest before they are raised to a power, and the sum is
    scaled back after the root, so that 10th powers neither overflow nor vanish.

    Parameters
    ----------
    stage_map : (N, C, H, W) float
    orders : sequence of int
        p, at least 1.
    """
    flat = stage_map.float().flatten(2)  # (N, C, S)
    own = flat.abs().amax(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    largest = own.amax(dim=1, keepdim=True)
    by_channel, by_image = flat / own, flat / largest
    vectors = []
    for order in orders:
        column = by_image.pow(order).sum(dim=1, keepdim=True)  # (N, 1, S)
        sums = (by_channel.pow(order) * column).sum(dim=2, keepdim=True)  # (N, C, 1)
        root = sums.sign() * sums.abs().pow(1 / order)
        vectors.append((root * own * largest).squeeze(2))
    return torch.stack(vectors, dim=1)
