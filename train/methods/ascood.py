"""ASCOOD: uncertainty on outliers that are made from the training images themselves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from train.methods.losses import cross_entropy, uniform_divergence
from train.methods.method import Draw, Method, Settings, TrainingBatch
from train.methods.passes import joint_logits
from train.methods.synthesis.settings import SynthesisSettings, synthesise


class AscoodSettings(Settings, SynthesisSettings):
    """ASCOOD's knobs; the defaults are its authors' for fine-grained aircraft and cars."""

    name: Literal["ascood"] = "ascood"
    weight: float = Field(default=1.0, ge=0)
    """Weight of the divergence from uniform on the outliers (the paper's lambda)."""


class Ascood(Method):
    r"""ASCOOD: :math:`CE(f(x), y) + w\, KL(U \| p(x'))`, x' made from x by its gradient.

    Images and outliers pass the model as one batch. The model must standardise its features
    (``feature_norm = "zscore"``), which bounds their norm and with it the confidence.

    References
    ----------
    ASCOOD (arXiv 2411.10794), section 3, equation 5; see `uniform_divergence` for the direction of
    the divergence.
    """

    def __init__(self, settings: AscoodSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, ``uniform`` and how large the perturbation was.

        ``perturbation_mean`` and ``perturbation_max`` are of the absolute change, in units of a
        normalised intensity; one 8-bit level is about 0.017. Far below that there is no outlier.
        """
        settings = self.settings
        outliers = synthesise(model, batch.images, batch.labels, settings=settings, draw=draw)
        inside, outside = joint_logits(model, batch.images, outliers)
        clean = cross_entropy(inside, batch.labels)
        divergence = uniform_divergence(outside)
        change = (outliers - batch.images).detach().abs()
        return {
            "loss": clean + settings.weight * divergence,
            "cross_entropy": clean,
            "uniform": divergence,
            "perturbation_mean": change.mean(),
            "perturbation_max": change.max(),
        }
