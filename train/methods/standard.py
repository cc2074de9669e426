"""Plain classification: cross-entropy on in-distribution images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from train.methods.losses import cross_entropy
from train.methods.method import Draw, Settings, TrainingBatch


class StandardSettings(Settings):
    """No knobs: cross-entropy."""

    name: Literal["standard"] = "standard"


class Standard:
    """Cross-entropy; outliers in the batch are ignored."""

    needs_outliers = StandardSettings.needs_outliers
    forwards = 1

    def __init__(self, settings: StandardSettings) -> None:
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``."""
        return {"loss": cross_entropy(model(batch.images), batch.labels)}
