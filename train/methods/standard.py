"""Plain classification: cross-entropy on in-distribution images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from train.methods.losses import cross_entropy
from train.methods.method import Draw, Method, Settings, TrainingBatch


class StandardSettings(Settings):
    """No knobs: cross-entropy."""

    name: Literal["standard"] = "standard"


class Standard(Method):
    """Cross-entropy; outliers in the batch are ignored."""

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``."""
        return {"loss": cross_entropy(model(batch.images), batch.labels)}
