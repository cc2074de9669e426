"""ASCOOD: uncertainty on outliers that are made from the training images themselves."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from train.methods.losses import cross_entropy, uniform_divergence
from train.methods.method import Draw, Settings, TrainingBatch
from train.methods.passes import joint_logits
from train.methods.synthesis.gradient import gradient_outliers


class AscoodSettings(Settings):
    """ASCOOD's knobs; the defaults are its authors' for fine-grained aircraft and cars."""

    needs_zscore: ClassVar[bool] = True

    name: Literal["ascood"] = "ascood"
    weight: float = Field(default=1.0, ge=0)
    """Weight of the divergence from uniform on the outliers (the paper's lambda)."""
    p_inv: float = Field(default=0.1, gt=0, le=1)
    """Share of an image's intensities that are changed."""
    alpha_max: float = Field(default=0.1, gt=0)
    """Strength of the change at the start of training. It depends on image size, backbone and
    sigma: tune it anew for each, looking at the logged perturbation."""
    alpha_min: float = Field(default=0.1, gt=0)
    """Strength of the change in the last epoch."""

    @model_validator(mode="after")
    def _alpha_falls(self) -> Self:
        if self.alpha_min > self.alpha_max:
            raise ValueError(
                f"`alpha_min` = {self.alpha_min} is above `alpha_max` = {self.alpha_max}; "
                "the strength falls over the epochs"
            )
        return self


def strength_at(epoch: int, *, epochs: int, alpha_max: float, alpha_min: float) -> float:
    """Return ASCOOD's alpha in an epoch, counted from 1: linear, exactly `alpha_min` in the last.

    >>> [strength_at(e, epochs=4, alpha_max=300, alpha_min=100) for e in (1, 2, 4)]
    [250.0, 200.0, 100.0]
    """
    return alpha_min + (alpha_max - alpha_min) * (1 - epoch / epochs)


class Ascood:
    r"""ASCOOD: :math:`CE(f(x), y) + w\, KL(U \| p(x'))`, x' made from x by its gradient.

    Images and outliers pass the model as one batch. The model must standardise its features
    (``feature_norm = "zscore"``), which bounds their norm and with it the confidence.

    References
    ----------
    ASCOOD (arXiv 2411.10794), section 3, equation 5; see `uniform_divergence` for the direction of
    the divergence.
    """

    needs_outliers = AscoodSettings.needs_outliers
    forwards = 1

    def __init__(self, settings: AscoodSettings) -> None:
        self.settings = settings

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        """Return ``loss``, ``cross_entropy``, ``uniform`` and how large the perturbation was.

        ``perturbation_mean`` and ``perturbation_max`` are of the absolute change, in units of a
        normalised intensity; one 8-bit level is about 0.017. Far below that there is no outlier.
        """
        settings = self.settings
        outliers = gradient_outliers(
            model,
            batch.images,
            batch.labels,
            strength=strength_at(
                draw.epoch,
                epochs=draw.epochs,
                alpha_max=settings.alpha_max,
                alpha_min=settings.alpha_min,
            ),
            share=settings.p_inv,
        )
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
