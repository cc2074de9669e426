"""LogitNorm: cross-entropy on logits of one length, so that confidence cannot grow with it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from train.methods.losses import normalised_cross_entropy
from train.methods.method import Draw, Method, Settings, TrainingBatch
from train.precision import full_precision


class LogitnormSettings(Settings):
    """LogitNorm: cross-entropy on logits of one length."""

    source: ClassVar[str] = "Wei et al., 2022 (arXiv 2205.09310)"

    name: Literal["logitnorm"] = "logitnorm"
    temperature: float = Field(default=0.04, gt=0)
    """What the logits, scaled to length 1, are divided by (the paper's tau). Larger values bound
    the confidence more: with many classes no loss is below about
    log(1 + (K - 1) exp(-1 / temperature))."""


class Logitnorm(Method):
    r"""LogitNorm: cross-entropy on logits that are scaled to one length.

    :math:`CE(z / (T \|z\|), y)` for logits :math:`z = f(x)`. The loss sees the direction
    of the logits alone, so that training does not lengthen them on images it is sure of. The
    model's own logits stay as they are: scores see their length.

    References
    ----------
    LogitNorm (arXiv 2205.09310), section 3.2.
    """

    def __init__(self, settings: LogitnormSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss`` and ``logit_length``, the mean length of the logits."""
        logits = full_precision(model(batch.images))
        loss = normalised_cross_entropy(logits, batch.labels, temperature=self.settings.temperature)
        return {"loss": loss, "logit_length": torch.linalg.vector_norm(logits, dim=1).mean()}
