"""Outlier exposure: cross-entropy on images, and to the uniform distribution on outliers."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from train.methods.losses import cross_entropy, uniform_cross_entropy
from train.methods.method import Draw, Method, Settings, TrainingBatch, outliers_of
from train.methods.passes import joint_logits, separate_logits

ForwardMode = Literal["joint", "separate"]
"""Whether several batches pass the model as one, or one after the other."""


class ExposureSettings(Settings):
    """What the methods that show outliers to the model unchanged have in common."""

    needs_outliers: ClassVar[bool] = True

    forward_mode: ForwardMode = "joint"
    """Whether images and outliers pass the model as one batch (``joint``), so that BatchNorm
    normalises them alike, or one after the other (``separate``)."""


class OeSettings(ExposureSettings):
    """Outlier exposure: cross-entropy to the uniform distribution on outliers."""

    source: ClassVar[str] = "Hendrycks, Mazeika and Dietterich, 2019 (arXiv 1812.04606)"

    name: Literal["oe"] = "oe"
    weight: float = Field(default=0.5, ge=0)
    """Weight of the outliers' cross-entropy to the uniform distribution (the papers' lambda or
    beta): 0.5 is its authors', 5 the MixOE preprint's on birds, flowers, cars and aircraft."""
    mining: float = Field(default=1.0, gt=0, le=1)
    """Share of each step's outliers that enter the loss: those with the largest softmax
    probability. 1 takes all of them. Useful with a large ``finetune.outlier_batch_size``."""


class Oe(Method):
    r"""Outlier exposure: cross-entropy, and on outliers the cross-entropy to uniform.

    :math:`CE(f(x), y) + w\, H(U, p(x_{out}))` with
    :math:`H(U, p) = -\frac1K \sum_k \log p_k`, which is at least :math:`\ln K`; each term is the
    mean over its own images.

    Notes
    -----
    `mining` chooses among the outliers of one step, over all processes, after they have passed the
    model. The MixOE authors' variant (OE-M) ranks 50,000 outliers once an epoch by the same
    measure; a step's batch needs no pass besides, and the choice is never older than the weights.

    References
    ----------
    Outlier exposure (arXiv 1812.04606), section 4.3; in one pass, as its authors' code has it.
    """

    def __init__(self, settings: OeSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy`` and ``uniform``, the mean of H(U, p)."""
        inside, outside = exposed_logits(model, batch, settings=self.settings)
        clean = cross_entropy(inside, batch.labels)
        exposures = uniform_cross_entropy(outside)
        if self.settings.mining < 1:
            exposures = exposures * shares_of_hardest(outside, draw, share=self.settings.mining)
        uniform = exposures.mean()
        return {
            "loss": clean + self.settings.weight * uniform,
            "cross_entropy": clean,
            "uniform": uniform,
        }


def exposed_logits(
    model: nn.Module, batch: TrainingBatch, *, settings: ExposureSettings
) -> tuple[Tensor, Tensor]:
    """Return the logits of images, (B, K), and of outliers, (B', K), in float32 or better.

    Raises
    ------
    RecipeError
        The batch has no outliers.
    """
    outliers = outliers_of(batch, settings=settings)
    passes = joint_logits if settings.forward_mode == "joint" else separate_logits
    inside, outside = passes(model, batch.images, outliers)
    return inside, outside


def shares_of_hardest(logits: Tensor, draw: Draw, *, share: float) -> Tensor:
    """Return weights whose product with a loss has, as its mean, the mean over the hardest alone.

    Parameters
    ----------
    logits : (B', K) float
        Of this process's outliers.
    draw : Draw
        Where the other processes' are gathered.
    share : float
        Of the outliers of all processes, in (0, 1]; at least one is taken.

    Returns
    -------
    (B',) float
        N / n for the n of all N outliers with the largest maximum softmax probability, 0 for the
        others. No gradient flows through it.
    """
    confidence = draw.gather(torch.softmax(logits.detach(), dim=1).amax(dim=1))
    kept = max(1, round(share * len(confidence)))
    weights = torch.zeros_like(confidence)
    weights[confidence.topk(kept).indices] = len(confidence) / kept
    return weights[draw.rank * len(logits) : (draw.rank + 1) * len(logits)]
